// The float32 filter, written once; a file includes it after it has defined, in its own namespace,
//   Vec                  a vector of floats: kWidth, kAllLanes, load, broadcast, store; mul_add, add, sub, min, max,
//                        below
//   kGroup               targets in a group
//   kVectors, kTargets   vectors of samples and targets held in registers at a time; kTargets divides kGroup

#include "narrow.inl"
#include "pack.inl"
#include "scan.inl"

constexpr int kHeld = kVectors * Vec::kWidth;  // samples held at a time
static_assert(kTile % kHeld == 0 && kGroup % kTargets == 0);

// Largest score of the group for kHeld samples. The accumulators start at the heights.
static inline void group_max(const float* x, const float* y, const float* h, int64_t d, Vec out[kVectors]) {
  for (int t0 = 0; t0 < kGroup; t0 += kTargets) {
    Vec acc[kVectors][kTargets];
#pragma GCC unroll 12
    for (int t = 0; t < kTargets; ++t)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[v][t] = Vec::broadcast(h + t0 + t);
    for (int64_t k = 0; k < d; ++k) {
      Vec xs[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) xs[v] = Vec::load(x + k * kTile + v * Vec::kWidth);
#pragma GCC unroll 12
      for (int t = 0; t < kTargets; ++t) {
        const Vec ys = Vec::broadcast(y + k * kGroup + t0 + t);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) acc[v][t] = mul_add(xs[v], ys, acc[v][t]);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Vec best = acc[v][0];
#pragma GCC unroll 12
      for (int t = 1; t < kTargets; ++t) best = max(best, acc[v][t]);
      out[v] = t0 == 0 ? best : max(out[v], best);
    }
  }
}

static void filter(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first, int64_t last,
                   TileState* states, float* maxima) {
  for (int i = 0; i < tiles; ++i) {
    const float* x = reinterpret_cast<const float*>(static_cast<const char*>(prepared) + i * bytes);
    for (int64_t g = first; g < last; ++g)
      for (int s = 0; s < kTile; s += kHeld) {
        Vec best[kVectors] = {};
        group_max(x + s, panels.y + g * panels.d * kGroup, panels.h + g * kGroup, panels.d, best);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
          best[v].store(maxima + (i * kTile + s + v * Vec::kWidth) * kChunk + (g - first) * Vec::kWidth);
      }
  }
  scan_tiles(maxima, tiles, panels, first, last, states);
}
