// The matrix unit of newer Xeons (AMX) as a filter: a 16 x 16 tile of scores takes 16 cycles for every 32 coordinates
// in bfloat16, or 64 in bytes. Targets are rows and samples columns, so that a group's maximum needs no horizontal
// step.
#if defined(__x86_64__) && defined(OTGEN_AMX)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "../../common.h"
#include "isa.h"
#if defined(OTGEN_EMULATE)
#include "emulate_tiles.h"
#endif

namespace otgen {
namespace amx {

#include "vec512.inl"

constexpr Meant kMeant{{12}, {12}, kNone};  // measured: below it AVX-512 is faster; not yet with VNNI
constexpr Range kBytesRange{40, kMostBytes};
constexpr Meant kBytesMeant{kBytesRange, kBytesRange, kNone};  // for want of a measurement
constexpr int kGroup = 16;                                     // rows of a tile
constexpr int64_t kTileBytes = kGroup * 64;

#include "narrow.inl"
#include "pack.inl"
#include "scan.inl"
#include "words.inl"

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static const TileConfig kTileConfig;  // in memory: compilers think that only its first bytes are read

// NAME(y, x, steps, before): products of two groups by one half of a tile, in tiles P and Q; stores what the product
// before left in R and S, which hides behind the matrix unit's work. Tiles are named by literals only. DOT is the
// instruction; kRow and kStep are bytes between the rows and the steps of samples.
#define OTGEN_STEP(DOT, P, Q, s)                      \
  _tile_loadd(6, x + (s) * kStep, kRow);              \
  _tile_loadd(4, y + (s) * kTileBytes, 64);           \
  DOT(P, 4, 6);                                       \
  _tile_loadd(5, y + (steps + (s)) * kTileBytes, 64); \
  DOT(Q, 5, 6)
#define OTGEN_PRODUCT(NAME, DOT, P, Q, R, S)                                    \
  static void NAME(const char* y, const char* x, int64_t steps, char* before) { \
    _tile_zero(P);                                                              \
    _tile_zero(Q);                                                              \
    OTGEN_STEP(DOT, P, Q, 0);                                                   \
    _tile_stored(R, before, 64);                                                \
    if (steps > 1) {                                                            \
      OTGEN_STEP(DOT, P, Q, 1);                                                 \
    }                                                                           \
    _tile_stored(S, before + kTileBytes, 64);                                   \
    for (int64_t s = 2; s < steps; ++s) {                                       \
      OTGEN_STEP(DOT, P, Q, s);                                                 \
    }                                                                           \
  }

// Samples are (half, steps, kDepth / 2, 16, 2).
struct Bfloat16 {
  static constexpr int64_t kDepth = otgen::kDepth, kRow = 64, kStep = kTileBytes;  // coordinates of a step; bytes
  static int64_t half(int64_t steps) { return steps * kTileBytes; }                // from one half to the other
  static const void* targets(const Panels& panels) { return panels.tiles; }
  OTGEN_PRODUCT(even, _tile_dpbf16ps, 0, 1, 2, 3)
  OTGEN_PRODUCT(odd, _tile_dpbf16ps, 2, 3, 0, 1)

  Vec v;
  static Bfloat16 load(const char* p) { return {Vec::load(reinterpret_cast<const float*>(p))}; }
  Bfloat16 larger(Bfloat16 other) const { return {max(v, other.v)}; }
  Vec score(const float* top, const float*) const { return add(v, Vec::broadcast(top)); }
};

// Samples are words of four coordinates, (words, kTile), as VNNI reads them, but with a sign.
struct Bytes {
  static constexpr int64_t kDepth = 64, kRow = kTile * 4, kStep = kTileWords * kRow;
  static int64_t half(int64_t) { return kRow / 2; }
  static const void* targets(const Panels& panels) { return panels.words; }
  OTGEN_PRODUCT(even, _tile_dpbssd, 0, 1, 2, 3)
  OTGEN_PRODUCT(odd, _tile_dpbssd, 2, 3, 0, 1)

  static constexpr int kProducts = 4;
  static constexpr Whole kWhole = Whole::kBytes;
  static constexpr int32_t kZero = 0;

  __m512i v;
  static Bytes load(const char* p) { return {_mm512_load_si512(p)}; }
  Bytes larger(Bytes other) const { return {_mm512_max_epi32(v, other.v)}; }
  Vec score(const float* top, const float* unit) const {
    return mul_add({_mm512_cvtepi32_ps(v)}, Vec::broadcast(unit), Vec::broadcast(top));
  }
};
#undef OTGEN_PRODUCT
#undef OTGEN_STEP

// What is left of a product: two tiles, one for each of two groups, and where their maxima belong.
template <class K>
struct Product {
  alignas(64) char sums[2 * kTileBytes];
  float* maxima;      // of the first group, those of the second follow
  const float* top;   // likewise
  const float* unit;  // likewise

  void take() const {
    for (int i = 0; i < 2; ++i)
      of_column(sums + i * kTileBytes).score(top + i, unit + i).store(maxima + i * Vec::kWidth);
  }

  // Largest of a group, for one half of the samples.
  static K of_column(const char* sums) {
    K best[4];
#pragma GCC unroll 16
    for (int t = 0; t < kGroup; ++t) {
      const K s = K::load(sums + t * 64);
      best[t % 4] = t < 4 ? s : best[t % 4].larger(s);
    }
    return best[0].larger(best[1]).larger(best[2].larger(best[3]));
  }
};

// Maxima of groups [first, last) for all halves of the tiles: (halves, kApart, 16). A product's sums are stored while
// the next one runs, and their maxima taken while the one after that does. The largest height of a group is added to
// its largest product.
template <class K>
static void all_maxima(const void* prepared, int64_t bytes, int halves, const Panels& panels, int64_t first,
                       int64_t last, float* maxima) {
  const int64_t steps = ceil_div(panels.d, K::kDepth);
  const char* targets = static_cast<const char*>(K::targets(panels));
  Product<K> products[2];
  int64_t k = 0;
  for (int64_t g = first; g < last; g += 2) {
    for (int half = 0; half < halves; ++half, ++k) {
      const char* y = targets + g * steps * kTileBytes;
      const char* x = static_cast<const char*>(prepared) + half / 2 * bytes + half % 2 * K::half(steps);
      if (k % 2 == 0)
        K::even(y, x, steps, products[1].sums);
      else
        K::odd(y, x, steps, products[0].sums);
      Product<K>& turn = products[k % 2];
      if (k >= 2) turn.take();
      turn.maxima = maxima + (half * kApart + g - first) * Vec::kWidth;
      turn.top = panels.top + g, turn.unit = panels.unit + g;
    }
  }
  char* sums = products[(k - 1) % 2].sums;
  if (k % 2 == 1) {
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + kTileBytes, 64);
  } else {
    _tile_stored(2, sums, 64);
    _tile_stored(3, sums + kTileBytes, 64);
  }
  for (int64_t i = std::max<int64_t>(0, k - 2); i < k; ++i) products[i % 2].take();
}

template <class K>
static void filter(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first, int64_t last,
                   TileState* states, float* maxima) {
  _tile_loadconfig(&kTileConfig);
  all_maxima<K>(prepared, bytes, 2 * tiles, panels, first, last, maxima);
  _tile_release();
  scan_tiles(maxima, tiles, panels, first, last, states);
}

// A group's targets in bytes, one to a row of a tile.
static float pack_bytes(const double* raw, const double* centre, double scale, int64_t d, int count, double step,
                        double least, int32_t* words, int32_t* sums, PackedNorms& norms) {
  const float unit = pack_whole<Bytes>(raw, centre, scale, d, count, step, least, words, sums, norms);
  for (int64_t s = 0; s < ceil_div(d, Bytes::kDepth); ++s, words += kGroup * kTileWords)
    for (int t = 0; t < kGroup; ++t)
      for (int w = 0; w < t; ++w) std::swap(words[t * kTileWords + w], words[w * kTileWords + t]);
  return unit;
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
      uint16_t* row = tile + (half * steps + c / kDepth) * kGroup * kDepth + (c % kDepth) / 2 * kDepth;
      _mm512_storeu_si512(row, _mm512_or_si512(_mm512_srli_epi32(even, 16), odd));
    }
    for (int i = 0; i < 2; ++i) {
      _mm512_storeu_pd(squares + half * Vec::kWidth + 8 * i, norm[i]);
      _mm512_storeu_pd(residual_squares + half * Vec::kWidth + 8 * i, residual[i]);
    }
  }
}

// Multiply-adds on tiles and nothing else.
#define OTGEN_BUSY(NAME, DOT, DEPTH)                        \
  static int64_t NAME(int64_t rounds) {                     \
    _tile_loadconfig(&kTileConfig);                         \
    for (int64_t r = 0; r < rounds; ++r) {                  \
      DOT(0, 4, 6);                                         \
      DOT(1, 4, 7);                                         \
      DOT(2, 5, 6);                                         \
      DOT(3, 5, 7);                                         \
    }                                                       \
    _tile_release();                                        \
    return rounds * 4 * 2 * kGroup * Vec::kWidth * (DEPTH); \
  }
OTGEN_BUSY(busy_bfloat16, _tile_dpbf16ps, Bfloat16::kDepth)
OTGEN_BUSY(busy_bytes, _tile_dpbssd, Bytes::kDepth)
#undef OTGEN_BUSY

}  // namespace amx

bool amx_permitted() {
  if (kTilesEmulated) return true;
  unsigned a, b, c, d;
  constexpr unsigned kWanted = 1u << 22 | 1u << 24 | 1u << 25;  // bfloat16, tiles, int8: CPUID leaf 7, EDX
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kWanted) != kWanted) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

static Isa on_bfloat16() {
  Isa isa = kAvx512;
  isa.name = "amx";
  isa.group = amx::kGroup;
  isa.packing = Packing::kBfloat16;
  isa.meant = amx::kMeant, isa.other = &avx512_vnni_isa();
  isa.filter = amx::filter<amx::Bfloat16>, isa.filter_images = nullptr;
  isa.prepare = amx::prepare;
  isa.score_group = amx::score_group, isa.narrow = amx::narrow;
  isa.pack = amx::pack;
  isa.busy = amx::busy_bfloat16;
  return isa;
}

static Isa on_bytes() {
  Isa isa = on_bfloat16();
  isa.name = "amx_int8";
  isa.packing = Packing::kByteTiles;
  isa.meant = amx::kBytesMeant;
  isa.filter = amx::filter<amx::Bytes>;
  isa.prepare = amx::prepare_whole<amx::Bytes>;
  isa.pack_whole = amx::pack_bytes;
  isa.busy = amx::busy_bytes;
  return isa;
}

const Isa& amx_isa() {
  static const Isa isa = on_bfloat16();
  return isa;
}

// To be asked for: no machine with AMX has timed it yet. Its winners are the same.
const Isa& amx_int8_isa() {
  static const Isa isa = on_bytes();
  return isa;
}

}  // namespace otgen
#endif
