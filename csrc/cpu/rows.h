// The loop that assign and topk share: the best targets of rows of samples.
#pragma once

#include <memory>

#include "threads.h"
#include "tiles.h"

namespace otgen {

// Calls found(row, index, score) with the k best targets of every row of x, best first; p as assign and topk have it.
template <class T, class Params, class F>
void search_rows(const Params& p, int64_t k, const F& found) {
  using Block = typename Search<T>::template Block<T>;
  const Search<T> search(p.y, p.h, p.m, p.d, k, p.run.threads);
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
