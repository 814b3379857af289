// The loop that assign and topk share: the best targets of rows of samples.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "threads.h"
#include "tiles.h"

namespace otgen {

// Mean of some rows of x, (n, d); zero for what is not finite.
template <class T>
std::vector<float> middle_of(const T* x, int64_t n, int64_t d) {
  constexpr int64_t kSome = 64;
  std::vector<float> mean(static_cast<size_t>(d), 0.0f);
  const int64_t rows = std::min(n, kSome);
  for (int64_t c = 0; c < d; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) sum += double(x[i * (n / std::max<int64_t>(rows, 1)) * d + c]) / double(rows);
    const float value = float(sum);
    if (std::abs(value) < 1e30f) mean[c] = value;
  }
  return mean;
}

// Calls found(row, index, score) with the k best targets of every row of x, best first; p as assign and topk have it.
template <class T, class Params, class F>
void search_rows(const Params& p, int64_t k, const F& found) {
  using Block = typename Search<T>::template Block<T>;
  const Search<T> search(p.y, p.h, p.m, p.d, k, p.run.threads, middle_of(p.x, p.n, p.d));
  const int tiles = tiles_per_block(p.n, p.run.threads);
  const int64_t block_rows = int64_t(tiles) * kTile;
  std::vector<std::unique_ptr<Block>> blocks(static_cast<size_t>(p.run.threads));

  parallel_for(ceil_div(p.n, block_rows), p.run, [&](int64_t b, int thread) {
    if (!blocks[thread]) blocks[thread] = std::make_unique<Block>(search, tiles);
    Block& block = *blocks[thread];
    const int64_t first = b * block_rows, last = std::min(first + block_rows, p.n);
    const int used = int(ceil_div(last - first, kTile));
    for (int i = 0; i < used; ++i) load_tile(p.x, p.n, p.d, first + i * kTile, block.samples(i));
    block.run(used);
    for (int64_t row = first; row < last; ++row) {
      const int i = int((row - first) / kTile), l = int((row - first) % kTile);
      found(row, block.index(i, l), block.score(i, l));
    }
  });
}

}  // namespace otgen
