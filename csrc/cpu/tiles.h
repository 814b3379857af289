// Tiles of samples: from the caller's rows, and from a stream.
#pragma once

#include <algorithm>
#include <vector>

#include "../random.h"
#include "isa/isa.h"

namespace otgen {

// Copies rows [row, row + kTile) of x, (n, d), to the columns of a (d, kTile) tile; rows past the last are zero.
template <class T>
void load_tile(const T* x, int64_t n, int64_t d, int64_t row, T* tile) {
  const int rows = int(std::min<int64_t>(kTile, n - row));
  for (int64_t c = 0; c < d; ++c)
    for (int l = 0; l < kTile; ++l) tile[c * kTile + l] = l < rows ? x[(row + l) * d + c] : T(0);
}

static_assert(kTurn == kTile, "the images of a tile are the next ones");

// Tiles of a stream start at multiples of kTile of its index, so the first and the last may hold samples not asked for.
// A tile and its images belong together.
struct StreamTiles {
  Stream stream;
  int64_t n, d;
  std::vector<uint32_t> lanes;  // (d, kTile) Sobol numbers of 0, ..., kTile - 1

  StreamTiles(const Stream& s, int64_t count, int64_t dim) : stream(s), n(count), d(dim) {
    if (s.directions == nullptr) return;
    lanes.assign(size_t(d) * kTile, 0);
    for (int64_t k = 0; k < d; ++k)
      for (int l = 0; l < kTile; ++l)
        for (int b = 0; b < 5; ++b)
          if (l >> b & 1) lanes[k * kTile + l] ^= s.directions[k * 32 + b];
  }

  int64_t start() const { return stream.first / (stream.images * kTile) * (stream.images * kTile); }
  int64_t count() const {
    return n == 0 ? 0 : ceil_div(n + (stream.first - start()), stream.images * kTile) * stream.images;
  }

  void make(int64_t tile, float* x) const {
    const int64_t first = start() + tile * kTile;
    isa().sample(stream, lanes.data(), number_of(stream, first), d, x);
    make_image(x, image_of(stream, first), x);
  }

  void make_image(const float* of, int image, float* x) const {
    for (int64_t k = 0; k < d; ++k, of += kTile, x += kTile)
      if (is_reflected(image, k))
        for (int l = 0; l < kTile; ++l) x[l] = reflected(stream.source, of[l]);
      else if (x != of)
        std::copy_n(of, kTile, x);
  }

  // The lanes of a tile that were asked for are those of sample numbers row(tile, lane) in [0, n).
  int64_t row(int64_t tile, int lane) const { return start() + tile * kTile + lane - stream.first; }
};

}  // namespace otgen
