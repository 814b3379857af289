// The matrix unit of newer Xeons (AMX, bfloat16) as a filter: a 16 x 16 tile of scores takes 16 cycles for every 32
// coordinates. Targets are rows and samples columns, so that a group's maximum needs no horizontal step.
#if defined(__x86_64__) && defined(OTGEN_AMX)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "../../common.h"
#include "isa.h"
#if defined(OTGEN_EMULATE)
#include "emulate_tiles.h"
#endif

namespace otgen {
namespace amx {

#include "vec512.inl"

constexpr Fewest kFewest{12, 12};              // measured: below it AVX-512 is faster; not yet with VNNI
constexpr int kGroup = 16;                     // rows of a tile
constexpr int kStep = kGroup * kDepth;         // numbers in a tile of targets or of samples
constexpr int kRowBytes = kDepth * 2;          // of those
constexpr int kScores = kGroup * Vec::kWidth;  // in a tile of scores

#include "narrow.inl"
#include "pack.inl"
#include "scan.inl"

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static const TileConfig kTileConfig;  // in memory: compilers think that only its first bytes are read

// What is left of a product: two tiles of scores, one for each of two groups, and where their maxima belong.
struct Product {
  alignas(64) float scores[2 * kScores];
  float* maxima;     // of the first group, those of the second follow
  const float* top;  // of the first group

  void take() const {
    for (int i = 0; i < 2; ++i) column_max(scores + i * kScores, top + i).store(maxima + i * Vec::kWidth);
  }

  // Largest score of a group, with the group's largest height, for one half of the samples.
  static Vec column_max(const float* scores, const float* top) {
    Vec best[4];
#pragma GCC unroll 16
    for (int t = 0; t < kGroup; ++t) {
      const Vec s = Vec::load(scores + t * Vec::kWidth);
      best[t % 4] = t < 4 ? s : max(best[t % 4], s);
    }
    return add(max(max(best[0], best[1]), max(best[2], best[3])), Vec::broadcast(top));
  }
};

// NAME(y, x, steps, before): scores, without heights, of two groups by one half of a tile, in tiles P and Q; stores
// what the product before left in R and S, which hides behind the matrix unit's work. Tiles are named by literals only.
#define OTGEN_STEP(P, Q, s)                             \
  _tile_loadd(6, x + (s) * kStep, kRowBytes);           \
  _tile_loadd(4, y + (s) * kStep, kRowBytes);           \
  _tile_dpbf16ps(P, 4, 6);                              \
  _tile_loadd(5, y + (steps + (s)) * kStep, kRowBytes); \
  _tile_dpbf16ps(Q, 5, 6)
#define OTGEN_PRODUCT(NAME, P, Q, R, S)                                                         \
  static inline void NAME(const uint16_t* y, const uint16_t* x, int64_t steps, float* before) { \
    _tile_zero(P);                                                                              \
    _tile_zero(Q);                                                                              \
    OTGEN_STEP(P, Q, 0);                                                                        \
    _tile_stored(R, before, 64);                                                                \
    if (steps > 1) {                                                                            \
      OTGEN_STEP(P, Q, 1);                                                                      \
    }                                                                                           \
    _tile_stored(S, before + kScores, 64);                                                      \
    for (int64_t s = 2; s < steps; ++s) {                                                       \
      OTGEN_STEP(P, Q, s);                                                                      \
    }                                                                                           \
  }
OTGEN_PRODUCT(product_even, 0, 1, 2, 3)
OTGEN_PRODUCT(product_odd, 2, 3, 0, 1)
#undef OTGEN_PRODUCT
#undef OTGEN_STEP

// Maxima of groups [first, last) for all halves of the tiles: (halves, kChunk, 16). A product's scores are stored
// while the next one runs, and their maxima taken while the one after that does.
static void all_maxima(const void* prepared, int64_t bytes, int halves, const Panels& panels, int64_t first,
                       int64_t last, float* maxima) {
  const int64_t steps = ceil_div(panels.d, kDepth);
  Product products[2];
  int64_t k = 0;
  for (int64_t g = first; g < last; g += 2) {
    for (int half = 0; half < halves; ++half, ++k) {
      const uint16_t* y = panels.tiles + g * steps * kStep;
      const uint16_t* x = reinterpret_cast<const uint16_t*>(static_cast<const char*>(prepared) + half / 2 * bytes) +
                          half % 2 * steps * kStep;
      if (k % 2 == 0)
        product_even(y, x, steps, products[1].scores);
      else
        product_odd(y, x, steps, products[0].scores);
      Product& turn = products[k % 2];
      if (k >= 2) turn.take();
      turn.maxima = maxima + (half * kChunk + g - first) * Vec::kWidth;
      turn.top = panels.top + g;
    }
  }
  float* scores = products[(k - 1) % 2].scores;
  if (k % 2 == 1) {
    _tile_stored(0, scores, 64);
    _tile_stored(1, scores + kScores, 64);
  } else {
    _tile_stored(2, scores, 64);
    _tile_stored(3, scores + kScores, 64);
  }
  for (int64_t i = std::max<int64_t>(0, k - 2); i < k; ++i) products[i % 2].take();
}

static void filter(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first, int64_t last,
                   TileState* states, float* maxima) {
  _tile_loadconfig(&kTileConfig);
  all_maxima(prepared, bytes, 2 * tiles, panels, first, last, maxima);
  _tile_release();
  scan_tiles(maxima, tiles, panels, first, last, states);
}

// To bfloat16, as `to_bfloat16` does, in the upper half of each number.
static inline __m512i rounded(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  return _mm512_and_si512(up, _mm512_set1_epi32(int(0xFFFF0000u)));
}

// Pairs of coordinates side by side, (half, steps, kDepth / 2, 16, 2) bfloat16: the order the matrix unit wants.
static void prepare(const float* x, const float* middle, float, int64_t d, void* out, double* squares,
                    double* residual_squares) {
  uint16_t* tile = static_cast<uint16_t*>(out);
  const int64_t steps = ceil_div(d, kDepth);
  const auto add_squares = [](__m512 v, __m512d* sums) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    sums[0] = _mm512_fmadd_pd(low, low, sums[0]);
    sums[1] = _mm512_fmadd_pd(high, high, sums[1]);
  };
  for (int half = 0; half < 2; ++half) {
    __m512d norm[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()}, residual[2] = {norm[0], norm[1]};
    const auto coordinate = [&](int64_t c) {
      if (c >= d) return _mm512_setzero_si512();
      const __m512 v = _mm512_sub_ps(_mm512_loadu_ps(x + c * kTile + half * Vec::kWidth), _mm512_set1_ps(middle[c]));
      const __m512i b = rounded(v);
      add_squares(v, norm);
      add_squares(_mm512_sub_ps(v, _mm512_castsi512_ps(b)), residual);  // exact: 16 bits are left
      return b;
    };
    for (int64_t c = 0; c < steps * kDepth; c += 2) {
      const __m512i even = coordinate(c), odd = coordinate(c + 1);
      uint16_t* row = tile + (half * steps + c / kDepth) * kStep + (c % kDepth) / 2 * kDepth;
      _mm512_storeu_si512(row, _mm512_or_si512(_mm512_srli_epi32(even, 16), odd));
    }
    for (int i = 0; i < 2; ++i) {
      _mm512_storeu_pd(squares + half * Vec::kWidth + 8 * i, norm[i]);
      _mm512_storeu_pd(residual_squares + half * Vec::kWidth + 8 * i, residual[i]);
    }
  }
}

// Multiply-adds on tiles and nothing else.
static int64_t busy(int64_t rounds) {
  _tile_loadconfig(&kTileConfig);
  for (int64_t r = 0; r < rounds; ++r) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return rounds * 4 * 2 * kGroup * Vec::kWidth * kDepth;
}

}  // namespace amx

bool amx_permitted() {
#if defined(OTGEN_EMULATE)
  return true;
#endif
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTileBit = 1u << 24;  // CPUID leaf 7, EDX
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kBf16) == 0 || (d & kTileBit) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

const Isa kAmx = [] {
  Isa isa = kAvx512;
  isa.name = "amx";
  isa.group = amx::kGroup;
  isa.packing = Packing::kBfloat16;
  isa.fewest = amx::kFewest, isa.other = &kAvx512Vnni;
  isa.filter = amx::filter;
  isa.prepare = amx::prepare;
  isa.narrow = amx::narrow;
  isa.pack = amx::pack;
  isa.busy = amx::busy;
  return isa;
}();

}  // namespace otgen
#endif
