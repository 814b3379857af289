// laplacian: edges and weights of the Newton Hessian, from pairs of best and second-best targets.
//
// Where the gap between them is below e, a sample lies within e / |y_i - y_j| of the facet between cells i and j, on
// the side of i if that is the best; so of N samples about N e H_ij do, with H_ij = mu(facet) / |y_i - y_j|. Each side
// has its own e and its own estimate, and the weight is a mean of both.
#include <algorithm>
#include <vector>

#include "cpu.h"
#include "threads.h"

namespace otgen {
namespace {

constexpr int64_t kRows = 256;  // that a thread sorts at a time

}  // namespace

void laplacian_cpu(const LaplacianParams& p) {
  // Those near a facet, by the smaller index first; without branches, which no processor could foresee.
  std::vector<uint32_t> rows(static_cast<size_t>(p.p)), ends(static_cast<size_t>(p.p));
  int64_t kept = 0;
  for (int64_t s = 0; s < p.p; ++s) {
    const int32_t best = p.pairs[2 * s], second = p.pairs[2 * s + 1];
    rows[kept] = uint32_t(std::min(best, second));
    ends[kept] = 2 * uint32_t(std::max(best, second)) + (best > second);
    kept += p.gaps[s] < p.bandwidth[best];
  }
  // Sorted by rows through counting, then within each.
  std::vector<int64_t> start(p.m + 1, 0);
  for (int64_t s = 0; s < kept; ++s) ++start[rows[s] + 1];
  for (int64_t i = 0; i < p.m; ++i) start[i + 1] += start[i];
  std::vector<uint32_t> other(static_cast<size_t>(kept));
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t s = 0; s < kept; ++s) other[next[rows[s]]++] = ends[s];
  parallel_for(ceil_div(p.m, kRows), {p.threads, {}}, [&](int64_t b, int) {
    for (int64_t i = b * kRows; i < std::min(p.m, (b + 1) * kRows); ++i)
      std::sort(other.begin() + start[i], other.begin() + start[i + 1]);
  });
  int64_t edges = 0;
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t a = start[i]; a < start[i + 1];) {
      const int64_t j = other[a] / 2;
      int64_t hits[2] = {0, 0};  // on the side of i, of j
      for (; a < start[i + 1] && other[a] / 2 == j; ++a) ++hits[other[a] % 2];
      p.edges[2 * edges] = i, p.edges[2 * edges + 1] = j;
      const double e[2] = {double(p.bandwidth[i]), double(p.bandwidth[j])};
      const double of_both = e[0] * e[0] + e[1] * e[1];
      const double share[2] = {p.local ? e[1] * e[1] / of_both : 0.5, p.local ? e[0] * e[0] / of_both : 0.5};
      p.weights[edges] = p.scale * (share[0] * (double(hits[0]) / e[0]) + share[1] * (double(hits[1]) / e[1]));
      ++edges;
    }
  *p.count = edges;
}

}  // namespace otgen
