// topk: every sample's k best targets, best first.
#include <memory>

#include "cpu.h"
#include "threads.h"
#include "tiles.h"

namespace otgen {

template <class T>
void topk_cpu(const TopkParams<T>& p) {
  using Block = typename Search<T>::template Block<T>;
  const Search<T> search(p.y, p.h, p.m, p.d, p.k, p.run.threads);
  const int tiles = tiles_per_block(p.n, p.run.threads);
  const int64_t block_rows = int64_t(tiles) * kTile;
  std::vector<std::unique_ptr<Block>> blocks(p.run.threads);

  parallel_for(ceil_div(p.n, block_rows), p.run, [&](int64_t b, int thread) {
    if (!blocks[thread]) blocks[thread] = std::make_unique<Block>(search, tiles);
    Block& block = *blocks[thread];
    const int64_t first = b * block_rows, last = std::min(first + block_rows, p.n);
    const int used = int(ceil_div(last - first, kTile));
    for (int i = 0; i < used; ++i) load_tile(p.x, p.n, p.d, first + i * kTile, block.samples(i));
    block.run(used);
    for (int64_t row = first; row < last; ++row) {
      const int i = int((row - first) / kTile), l = int((row - first) % kTile);
      std::copy_n(block.index(i, l), p.k, p.index + row * p.k);
      std::transform(block.score(i, l), block.score(i, l) + p.k, p.score + row * p.k, [](double s) { return T(s); });
    }
  });
}

template void topk_cpu(const TopkParams<float>&);
template void topk_cpu(const TopkParams<double>&);

}  // namespace otgen
