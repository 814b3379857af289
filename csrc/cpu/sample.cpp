// sample: the very samples that measure makes and does not keep.
#include <memory>

#include "cpu.h"
#include "threads.h"
#include "tiles.h"

namespace otgen {

void sample_cpu(const SampleParams& p) {
  const StreamTiles source(p.stream, p.n, p.d);
  std::vector<std::unique_ptr<float[]>> tiles(p.run.threads);
  parallel_for(source.count(), p.run, [&](int64_t tile, int thread) {
    if (!tiles[thread]) tiles[thread].reset(new float[p.d * kTile]);
    const float* x = tiles[thread].get();
    source.make(tile, tiles[thread].get());
    for (int l = 0; l < kTile; ++l) {
      const int64_t row = source.row(tile, l);
      if (row < 0 || row >= p.n) continue;
      for (int64_t c = 0; c < p.d; ++c) p.x[row * p.d + c] = x[c * kTile + l];
    }
  });
}

}  // namespace otgen
