// The filter on vector registers, written once; a file includes it after it has defined, in its own namespace,
//   Vec                  a vector of floats: Lane, kWidth, kAllLanes, load, broadcast, store; mul_add, add, sub, min,
//                        max (the second where either is not a number), below
//   kGroup               targets in a group
//   kVectors, kTargets   vectors of samples and targets held in registers at a time; kTargets divides kGroup

#include "narrow.inl"
#include "pack.inl"
#include "scan.inl"

constexpr int kHeld = kVectors * Vec::kWidth;  // samples held at a time
static_assert(kTile % kHeld == 0 && kGroup % kTargets == 0);

// One step's products of kHeld samples and kTargets targets, added to their sums. V is what is multiplied: Vec, one
// coordinate in a lane, or a vector of words, two shorts or four bytes in a lane (whole.inl).
template <class V, class Lane = typename V::Lane>
static inline void add_products(const Lane* x, const Lane* y, V acc[kVectors][kTargets]) {
  V xs[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) xs[v] = V::load(x + v * Vec::kWidth);
#pragma GCC unroll 12
  for (int t = 0; t < kTargets; ++t) {
    const V ys = V::broadcast(y + t);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[v][t] = mul_add(xs[v], ys, acc[v][t]);
  }
}

// Largest score of a group for kHeld samples. The accumulators start at the heights.
template <class V, class Lane = typename V::Lane>
static inline void group_max(const Lane* x, const Lane* y, const Lane* h, int64_t steps, V out[kVectors]) {
  for (int t0 = 0; t0 < kGroup; t0 += kTargets) {
    V acc[kVectors][kTargets];
#pragma GCC unroll 12
    for (int t = 0; t < kTargets; ++t)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[v][t] = V::broadcast(h + t0 + t);
    for (int64_t k = 0; k < steps; ++k) add_products(x + k * kTile, y + k * kGroup + t0, acc);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      V best = acc[v][0];
#pragma GCC unroll 12
      for (int t = 1; t < kTargets; ++t) best = max(acc[v][t], best);
      out[v] = t0 == 0 ? best : max(best, out[v]);
    }
  }
}

// A maximum of the float32 filter is a score as it is.
static inline Vec to_score(Vec best, const Panels&, int64_t) { return best; }

// y is (groups, steps, kGroup), h (groups, kGroup), a prepared tile (steps, kTile).
template <class V, class Lane = typename V::Lane>
static void filter_groups(const void* prepared, int64_t bytes, int tiles, const Panels& panels, const Lane* y,
                          const Lane* h, int64_t steps, int64_t first, int64_t last, TileState* states, float* maxima) {
  for (int tile = 0; tile < tiles; ++tile) {
    const Lane* x = reinterpret_cast<const Lane*>(static_cast<const char*>(prepared) + tile * bytes);
    for (int64_t g = first; g < last; ++g)
      for (int s = 0; s < kTile; s += kHeld) {
        V best[kVectors];
        group_max(x + s, y + g * steps * kGroup, h + g * kGroup, steps, best);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
          to_score(best[v], panels, g)
              .store(maxima + (tile * kTile + s + v * Vec::kWidth) * kApart + (g - first) * Vec::kWidth);
      }
  }
  scan_tiles(maxima, tiles, panels, first, last, states);
}

[[maybe_unused]] static void filter(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first,
                                    int64_t last, TileState* states, float* maxima) {
  filter_groups<Vec>(prepared, bytes, tiles, panels, panels.y, panels.h, panels.d, first, last, states, maxima);
}
