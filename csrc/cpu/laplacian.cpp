// laplacian: edges and weights of the Newton Hessian, from pairs of best and second-best targets.
//
// Where the gap between them is below e, a sample lies within e / |y_i - y_j| of the facet between cells i and j, on
// one of its two sides; so of N samples about 2 N e H_ij do, with H_ij = mu(facet) / |y_i - y_j|.
#include <algorithm>
#include <vector>

#include "cpu.h"

namespace otgen {

void laplacian_cpu(const LaplacianParams& p) {
  const auto kept = [&p](int64_t s) {
    return p.gaps[s] < std::min(p.bandwidth[p.pairs[2 * s]], p.bandwidth[p.pairs[2 * s + 1]]);
  };
  // Sorted by the smaller index through counting, then within a row.
  std::vector<int64_t> start(p.m + 1, 0);
  for (int64_t s = 0; s < p.p; ++s)
    if (kept(s)) ++start[std::min(p.pairs[2 * s], p.pairs[2 * s + 1]) + 1];
  for (int64_t i = 0; i < p.m; ++i) start[i + 1] += start[i];
  std::vector<int32_t> other(start[p.m]);
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t s = 0; s < p.p; ++s)
    if (kept(s)) {
      const auto [i, j] = std::minmax(p.pairs[2 * s], p.pairs[2 * s + 1]);
      other[next[i]++] = j;
    }
  int64_t edges = 0;
  for (int64_t i = 0; i < p.m; ++i) {
    std::sort(other.begin() + start[i], other.begin() + start[i + 1]);
    for (int64_t a = start[i]; a < start[i + 1];) {
      int64_t b = a;
      while (b < start[i + 1] && other[b] == other[a]) ++b;
      if (edges < p.capacity) {
        p.edges[2 * edges] = i, p.edges[2 * edges + 1] = other[a];
        p.weights[edges] = double(b - a) * p.scale / (2.0 * std::min(p.bandwidth[i], p.bandwidth[other[a]]));
      }
      ++edges;
      a = b;
    }
  }
  *p.count = edges;
}

}  // namespace otgen
