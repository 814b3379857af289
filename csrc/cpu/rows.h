// The loop that assign and topk share: the best targets of rows of samples.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "threads.h"
#include "tiles.h"

namespace otgen {

// Mean of some rows of x, (n, d), and a little more than the distances from it within which most of them lie; zero for
// what is not finite.
template <class T>
Region region_of(const T* x, int64_t n, int64_t d) {
  constexpr int64_t kSome = 64;
  constexpr double kHuge = 1e30, kMost = 0.9;  // a few that are far out should not coarsen all others
  constexpr double kReachMargin = 1.1, kNormMargin = 2;
  Region region{std::vector<float>(static_cast<size_t>(d), 0.0f), 0.0f, 0.0f};
  const int64_t rows = std::min(n, kSome), apart = n / std::max<int64_t>(rows, 1);
  std::vector<double> reach(static_cast<size_t>(rows), 0.0), square(static_cast<size_t>(rows), 0.0);
  for (int64_t c = 0; c < d; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) sum += double(x[i * apart * d + c]) / double(rows);
    if (!(std::abs(sum) < kHuge)) continue;
    region.middle[c] = float(sum);
    for (int64_t i = 0; i < rows; ++i) {
      const double away = std::abs(double(x[i * apart * d + c]) - sum);
      reach[i] = std::max(reach[i], away), square[i] += away * away;
    }
  }
  const auto of_most = [&](std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values.empty() ? 0.0 : values[size_t(kMost * double(rows - 1))];
  };
  region.reach = float(std::min(of_most(reach) * kReachMargin, kHuge));
  region.norm = float(std::min(std::sqrt(of_most(square)) * kNormMargin, kHuge));
  return region;
}

// Calls found(row, index, score) with the k best targets of every row of x, best first; p as assign and topk have it.
template <class T, class Params, class F>
void search_rows(const Params& p, int64_t k, const F& found) {
  using Block = typename Search<T>::template Block<T>;
  const Search<T> search(p.y, p.h, p.m, p.d, k, p.run.threads, region_of(p.x, p.n, p.d));
  const int tiles = search.tiles_per_block(p.n, p.run.threads);
  const int64_t block_rows = int64_t(tiles) * kTile;
  std::vector<std::unique_ptr<Block>> blocks(static_cast<size_t>(p.run.threads));

  parallel_for(ceil_div(p.n, block_rows), p.run, [&](int64_t b, int thread) {
    if (!blocks[thread]) blocks[thread] = std::make_unique<Block>(search, tiles);
    Block& block = *blocks[thread];
    const int64_t first = b * block_rows, last = std::min(first + block_rows, p.n);
    const int used = int(ceil_div(last - first, kTile));
    for (int i = 0; i < used; ++i) load_tile(p.x, p.n, p.d, first + i * kTile, block.samples(i));
    block.run(used, int(last - first) - (used - 1) * kTile);
    for (int64_t row = first; row < last; ++row) {
      const int i = int((row - first) / kTile), l = int((row - first) % kTile);
      found(row, block.index(i, l), block.score(i, l));
    }
  });
}

}  // namespace otgen
