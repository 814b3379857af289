// The filter for a tile and its images (random.h) on vector registers; a file includes it after filter.inl. Images
// differ in the signs of pairs of coordinates, by the number of the pair modulo kBlocks, so the products of a block of
// such pairs serve all of them: a Walsh-Hadamard transform of the blocks' sums gives those of half of the images, their
// negatives those of the other half.

// Sums of all blocks for kHeld samples and the targets of a group. x is (steps, kTile), y (steps, kGroup).
template <class V, int kBlocks, class Lane = typename V::Lane>
static inline void block_sums(const Lane* x, const Lane* y, int64_t steps, V sums[kBlocks][kGroup][kVectors]) {
  constexpr int kRun = 2 / V::kProducts;  // steps of a pair of coordinates
  for (int b = 0; b < kBlocks; ++b)
    for (int t0 = 0; t0 < kGroup; t0 += kTargets) {
      V acc[kVectors][kTargets] = {};
      for (int64_t k = b * kRun; k < steps; k += kBlocks * kRun) {
        add_products(x + k * kTile, y + k * kGroup + t0, acc);
        if (kRun == 2 && k + 1 < steps) add_products(x + (k + 1) * kTile, y + (k + 1) * kGroup + t0, acc);
      }
#pragma GCC unroll 12
      for (int t = 0; t < kTargets; ++t)
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[b][t0 + t][v] = acc[v][t];
    }
}

// Largest scores of a group for the images of one vector of samples.
template <class V, int kBlocks, class Lane = typename V::Lane>
static inline void image_max(const V (*sums)[kGroup][kVectors], int v, const Lane* h, V best[2 * kBlocks]) {
  for (int t = 0; t < kGroup; ++t) {
    V part[kBlocks];
    // By `load`: GCC 12 makes plain copies through memory.
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) part[b] = V::load(reinterpret_cast<const Lane*>(&sums[b][t][v]));
#pragma GCC unroll 3
    for (int apart = 1; apart < kBlocks; apart *= 2)
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b)
        if ((b & apart) == 0) {
          const V one = part[b], other = part[b + apart];
          part[b] = add(one, other), part[b + apart] = sub(one, other);
        }
    const V height = V::broadcast(h + t);
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      const V score = add(height, part[b]), opposite = sub(height, part[b]);
      best[2 * b] = t == 0 ? score : max(score, best[2 * b]);
      best[2 * b + 1] = t == 0 ? opposite : max(opposite, best[2 * b + 1]);
    }
  }
}

template <class V, int kBlocks, class Lane = typename V::Lane>
static void filter_blocks(const Lane* x, const Panels& panels, const Lane* y, const Lane* h, int64_t steps,
                          int64_t first, int64_t last, TileState* states, float* maxima) {
  alignas(64) V sums[kBlocks][kGroup][kVectors];
  for (int64_t g = first; g < last; ++g)
    for (int s = 0; s < kTile; s += kHeld) {
      block_sums<V, kBlocks>(x + s, y + g * steps * kGroup, steps, sums);
      for (int v = 0; v < kVectors; ++v) {
        V best[2 * kBlocks];
        image_max<V, kBlocks>(sums, v, h + g * kGroup, best);
#pragma GCC unroll 16
        for (int i = 0; i < 2 * kBlocks; ++i)
          to_score(best[i], panels, g)
              .store(maxima + (i * kTile + s + v * Vec::kWidth) * kApart + (g - first) * Vec::kWidth);
      }
    }
  scan_tiles(maxima, 2 * kBlocks, panels, first, last, states);
}

template <class V, class Lane = typename V::Lane>
static void filter_images_of(const void* prepared, int images, const Panels& panels, const Lane* y, const Lane* h,
                             int64_t steps, int64_t first, int64_t last, TileState* states, float* maxima) {
  const auto blocks = images == 2   ? filter_blocks<V, 1>
                      : images == 4 ? filter_blocks<V, 2>
                      : images == 8 ? filter_blocks<V, 4>
                                    : filter_blocks<V, 8>;
  blocks(static_cast<const Lane*>(prepared), panels, y, h, steps, first, last, states, maxima);
}

[[maybe_unused]] static void filter_images(const void* prepared, int images, const Panels& panels, int64_t first,
                                           int64_t last, TileState* states, float* maxima) {
  filter_images_of<Vec>(prepared, images, panels, panels.y, panels.lifted, panels.d, first, last, states, maxima);
}
