// The matrix unit of newer Xeons (AMX, bfloat16) as a filter: a 16 x 16 tile of scores takes 16 cycles for every 32
// coordinates. Targets are rows and samples columns, so that a group's maximum needs no horizontal step.
#if defined(__x86_64__) && defined(OTGEN_AMX)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../common.h"
#include "isa.h"

namespace otgen {
namespace amx {

struct Vec {
  static constexpr int kWidth = 16;
  static constexpr uint32_t kAllLanes = 0xFFFF;
  __m512 v;
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};

static inline Vec mul_add(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline uint32_t below(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }

constexpr int kGroup = 16;                     // rows of a tile
constexpr int kStep = kGroup * kDepth;         // numbers in a tile of targets or of samples
constexpr int kRowBytes = kDepth * 2;          // of those
constexpr int kScores = kGroup * Vec::kWidth;  // in a tile of scores

#include "group.inl"

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Scores, without heights, of two groups by the two halves of the samples: four tiles of 16 x 16 at out, both groups of
// one half first.
static inline void multiply(const uint16_t* y, const uint16_t* x, int64_t steps, float* out) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, y + s * kStep, kRowBytes);
    _tile_loadd(5, y + (steps + s) * kStep, kRowBytes);
    _tile_loadd(6, x + 2 * s * kStep, kRowBytes);
    _tile_loadd(7, x + (2 * s + 1) * kStep, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, out, 64);
  _tile_stored(2, out + kScores, 64);
  _tile_stored(1, out + 2 * kScores, 64);
  _tile_stored(3, out + 3 * kScores, 64);
}

// Largest product of a group, with the group's largest height, for one half of the samples.
static inline Vec column_max(const float* scores, const float* top) {
  Vec best[4];
#pragma GCC unroll 16
  for (int t = 0; t < kGroup; ++t) {
    const Vec s = Vec::load(scores + t * Vec::kWidth);
    best[t % 4] = t < 4 ? s : max(best[t % 4], s);
  }
  return add(max(max(best[0], best[1]), max(best[2], best[3])), Vec::broadcast(top));
}

// Offers the maxima of two groups, g and the next, for one half of a tile.
static inline void offer_pair(const float* scores, int64_t g, int64_t last, int half, const Panels& panels,
                              TileState& state) {
  offer(column_max(scores, panels.top + g), g, half * Vec::kWidth, panels, state);
  if (g + 1 == last) return;
  offer(column_max(scores + kScores, panels.top + g + 1), g + 1, half * Vec::kWidth, panels, state);
}

// Up to 64 coordinates: the targets of two groups stay in tiles 4 to 7 while halves of sample tiles pass by.
template <int kSteps>
static void filter_few(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first,
                       int64_t last, TileState* states) {
  alignas(64) float scores[2][2 * kScores];
  const auto load = [&](int64_t g) {
    const uint16_t* y = panels.tiles + g * kSteps * kStep;
    _tile_loadd(4, y, kRowBytes);
    _tile_loadd(5, y + kSteps * kStep, kRowBytes);
    if constexpr (kSteps == 2) {
      _tile_loadd(6, y + kStep, kRowBytes);
      _tile_loadd(7, y + 3 * kStep, kRowBytes);
    }
  };
  const auto product = [&](int half, float* out) {
    const char* tile = static_cast<const char*>(prepared) + half / 2 * bytes;
    const uint16_t* x = reinterpret_cast<const uint16_t*>(tile) + half % 2 * kStep;
    _tile_zero(0);
    _tile_zero(1);
    _tile_loadd(2, x, kRowBytes);
    _tile_dpbf16ps(0, 4, 2);
    _tile_dpbf16ps(1, 5, 2);
    if constexpr (kSteps == 2) {
      _tile_loadd(3, x + 2 * kStep, kRowBytes);
      _tile_dpbf16ps(0, 6, 3);
      _tile_dpbf16ps(1, 7, 3);
    }
    _tile_stored(0, out, 64);
    _tile_stored(1, out + kScores, 64);
  };
  load(first);
  product(0, scores[0]);
  int now = 0;
  for (int64_t g = first; g < last; g += 2) {
    for (int half = 0; half < 2 * tiles; ++half, now ^= 1) {
      const bool turn = half + 1 == 2 * tiles;
      if (turn && g + 2 < last) load(g + 2);
      if (!turn || g + 2 < last) product(turn ? 0 : half + 1, scores[now ^ 1]);
      offer_pair(scores[now], g, last, half % 2, panels, states[half / 2]);
    }
  }
}

// Any number of coordinates: two groups by both halves of a tile at a time.
static void filter_many(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first,
                        int64_t last, TileState* states) {
  const int64_t steps = ceil_div(panels.d, kDepth);
  alignas(64) float scores[2][4 * kScores];
  const auto product = [&](int64_t g, int i, float* out) {
    const char* x = static_cast<const char*>(prepared) + i * bytes;
    multiply(panels.tiles + g * steps * kStep, reinterpret_cast<const uint16_t*>(x), steps, out);
  };
  product(first, 0, scores[0]);
  int now = 0;
  for (int64_t g = first; g < last; g += 2) {
    for (int i = 0; i < tiles; ++i, now ^= 1) {
      if (i + 1 < tiles)
        product(g, i + 1, scores[now ^ 1]);
      else if (g + 2 < last)
        product(g + 2, 0, scores[now ^ 1]);
      for (int half = 0; half < 2; ++half)
        offer_pair(scores[now] + 2 * half * kScores, g, last, half, panels, states[i]);
    }
  }
}

// All tiles for one pair of groups, which the first brings to L1 for the others. One product ahead, so that the matrix
// unit works while the maxima of the last product are taken.
static void filter(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first, int64_t last,
                   TileState* states) {
  const TileConfig config;
  _tile_loadconfig(&config);
  const int64_t steps = ceil_div(panels.d, kDepth);
  const auto run = steps == 1 ? filter_few<1> : steps == 2 ? filter_few<2> : filter_many;
  run(prepared, bytes, tiles, panels, first, last, states);
  _tile_release();
}

// To bfloat16, as `to_bfloat16` does, in the upper half of each number.
static inline __m512i rounded(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  return _mm512_and_si512(up, _mm512_set1_epi32(int(0xFFFF0000u)));
}

// Pairs of coordinates side by side, (steps, half, kDepth / 2, 16, 2) bfloat16: the order the matrix unit wants.
static void prepare(const float* x, int64_t d, void* out, double* residual_squares) {
  uint16_t* tile = static_cast<uint16_t*>(out);
  for (int half = 0; half < 2; ++half) {
    __m512d sums[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    const auto coordinate = [&](int64_t c) {
      if (c >= d) return _mm512_setzero_si512();
      const __m512 v = _mm512_loadu_ps(x + c * kTile + half * Vec::kWidth);
      const __m512i b = rounded(v);
      const __m512 r = _mm512_sub_ps(v, _mm512_castsi512_ps(b));  // exact: 16 bits are left
      const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(r));
      const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(r, 1));
      sums[0] = _mm512_fmadd_pd(low, low, sums[0]);
      sums[1] = _mm512_fmadd_pd(high, high, sums[1]);
      return b;
    };
    for (int64_t c = 0; c < ceil_div(d, kDepth) * kDepth; c += 2) {
      const __m512i even = coordinate(c), odd = coordinate(c + 1);
      uint16_t* row = tile + ((c / kDepth) * 2 + half) * kStep + (c % kDepth) / 2 * kDepth;
      _mm512_storeu_si512(row, _mm512_or_si512(_mm512_srli_epi32(even, 16), odd));
    }
    _mm512_storeu_pd(residual_squares + half * Vec::kWidth, sums[0]);
    _mm512_storeu_pd(residual_squares + half * Vec::kWidth + 8, sums[1]);
  }
}

}  // namespace amx

bool amx_permitted() {
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTileBit = 1u << 24;  // CPUID leaf 7, EDX
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kBf16) == 0 || (d & kTileBit) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

const Isa kAmx = {
    "amx",         amx::kGroup,    Packing::kBfloat16, amx::filter,        amx::prepare,    amx::score_group,
    kAvx512.norms, kAvx512.sample, kAvx512.scores_f32, kAvx512.scores_f64, kAvx512.exp_f32, kAvx512.exp_f64};

}  // namespace otgen
#endif
