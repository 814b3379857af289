// The matrix unit on processors without one, for tests (-DOTGEN_CUDA=EMULATE): Intel's pseudocode of the instructions,
// after <immintrin.h>, whose names it takes over. Tiles that are not configured cannot be used, nor rows that are not a
// line of the cache long; speed is not emulated.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "../search.h"

namespace otgen {
namespace emulated {

struct alignas(64) Tile {
  char bytes[16][64];
};

inline thread_local Tile tiles[8];
inline thread_local bool configured = false;

inline Tile& tile(int t) {
  if (!configured) throw std::logic_error("a tile is used before it is configured");
  return tiles[t];
}

inline void load_config(const void* config) {
  const uint8_t* byte = static_cast<const uint8_t*>(config);  // palette, then 16 shorts from 16 on, 16 bytes from 48 on
  configured = byte[0] == 1;
  for (int t = 0; t < 8; ++t) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, byte + 16 + 2 * t, sizeof row_bytes);
    configured = configured && row_bytes == 64 && byte[48 + t] == 16;
  }
  std::memset(tiles, 0, sizeof tiles);
}

inline void release() { configured = false; }

inline void zero(int t) { tile(t) = {}; }

inline void load(int t, const void* p, int64_t stride) {
  for (int r = 0; r < 16; ++r) std::memcpy(tile(t).bytes[r], static_cast<const char*>(p) + r * stride, 64);
}

inline void store(int t, void* p, int64_t stride) {
  for (int r = 0; r < 16; ++r) std::memcpy(static_cast<char*>(p) + r * stride, tile(t).bytes[r], 64);
}

// Denormals count as zero.
inline float flushed(float v) { return std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v; }

// TDPBF16PS: even and odd coordinates are summed apart, rounded to nearest, and added to what is there.
inline void dot_bfloat16(int t, int a, int b) {
  for (int m = 0; m < 16; ++m) {
    uint16_t left[32];
    std::memcpy(left, tile(a).bytes[m], sizeof left);
    float sums[2][16] = {}, there[16];
    for (int k = 0; k < 16; ++k) {
      uint16_t right[32];
      std::memcpy(right, tile(b).bytes[k], sizeof right);
      for (int n = 0; n < 16; ++n)
        for (int i = 0; i < 2; ++i) {
          const float product = flushed(from_bfloat16(left[2 * k + i])) * flushed(from_bfloat16(right[2 * n + i]));
          sums[i][n] = flushed(sums[i][n] + flushed(product));
        }
    }
    std::memcpy(there, tile(t).bytes[m], sizeof there);
    for (int n = 0; n < 16; ++n) there[n] = flushed(there[n] + flushed(sums[0][n] + sums[1][n]));
    std::memcpy(tile(t).bytes[m], there, sizeof there);
  }
}

// TDPBSSD: bytes with a sign on both sides, exact.
inline void dot_bytes(int t, int a, int b) {
  for (int m = 0; m < 16; ++m) {
    int32_t sums[16];
    std::memcpy(sums, tile(t).bytes[m], sizeof sums);
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 16; ++n)
        for (int i = 0; i < 4; ++i)
          sums[n] += int32_t(int8_t(tile(a).bytes[m][4 * k + i])) * int32_t(int8_t(tile(b).bytes[k][4 * n + i]));
    std::memcpy(tile(t).bytes[m], sums, sizeof sums);
  }
}

}  // namespace emulated
}  // namespace otgen

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#define _tile_loadconfig ::otgen::emulated::load_config
#define _tile_release ::otgen::emulated::release
#define _tile_zero ::otgen::emulated::zero
#define _tile_loadd ::otgen::emulated::load
#define _tile_stored ::otgen::emulated::store
#define _tile_dpbf16ps ::otgen::emulated::dot_bfloat16
#define _tile_dpbssd ::otgen::emulated::dot_bytes
