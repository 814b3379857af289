// laplacian: edges and weights of the Newton Hessian, from pairs of best and second-best targets.
//
// Where the gap between them is below e, a sample lies within e / |y_i - y_j| of the facet between cells i and j, on
// the side of i if that is the best; so of N samples about N e H_ij do, with H_ij = mu(facet) / |y_i - y_j|. Each side
// has its own e and its own estimate, and the weight is their mean.
#include <algorithm>
#include <vector>

#include "cpu.h"

namespace otgen {

void laplacian_cpu(const LaplacianParams& p) {
  const auto kept = [&p](int64_t s) { return p.gaps[s] < p.bandwidth[p.pairs[2 * s]]; };
  // Sorted by the smaller index through counting, then within a row.
  std::vector<int64_t> start(p.m + 1, 0);
  for (int64_t s = 0; s < p.p; ++s)
    if (kept(s)) ++start[std::min(p.pairs[2 * s], p.pairs[2 * s + 1]) + 1];
  for (int64_t i = 0; i < p.m; ++i) start[i + 1] += start[i];
  std::vector<int64_t> other(start[p.m]);
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t s = 0; s < p.p; ++s)
    if (kept(s)) {
      const int32_t best = p.pairs[2 * s], second = p.pairs[2 * s + 1];
      other[next[std::min(best, second)]++] = 2 * int64_t{std::max(best, second)} + (best > second);
    }
  int64_t edges = 0;
  for (int64_t i = 0; i < p.m; ++i) {
    std::sort(other.begin() + start[i], other.begin() + start[i + 1]);
    for (int64_t a = start[i]; a < start[i + 1];) {
      const int64_t j = other[a] / 2;
      int64_t hits[2] = {0, 0};  // on the side of i, of j
      for (; a < start[i + 1] && other[a] / 2 == j; ++a) ++hits[other[a] % 2];
      if (edges < p.capacity) {
        p.edges[2 * edges] = i, p.edges[2 * edges + 1] = j;
        p.weights[edges] = 0.5 * p.scale * (hits[0] / double(p.bandwidth[i]) + hits[1] / double(p.bandwidth[j]));
      }
      ++edges;
    }
  }
  *p.count = edges;
}

}  // namespace otgen
