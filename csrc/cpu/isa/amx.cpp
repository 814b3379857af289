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

// Scores, without heights, of two groups by the two halves of the samples: four tiles of 16 x 16 at out.
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
  _tile_stored(1, out + kScores, 64);
  _tile_stored(2, out + 2 * kScores, 64);
  _tile_stored(3, out + 3 * kScores, 64);
}

// Largest score of a group for one half of the samples.
static inline Vec column_max(const float* scores, const float* h) {
  Vec best[4];
#pragma GCC unroll 16
  for (int t = 0; t < kGroup; ++t) {
    const Vec s = add(Vec::load(scores + t * Vec::kWidth), Vec::broadcast(h + t));
    best[t % 4] = t < 4 ? s : max(best[t % 4], s);
  }
  return max(max(best[0], best[1]), max(best[2], best[3]));
}

static void filter(const void* prepared, const Panels& panels, int64_t first, int64_t last, TileState& state) {
  const TileConfig config;
  _tile_loadconfig(&config);
  const uint16_t* x = static_cast<const uint16_t*>(prepared);
  const int64_t steps = ceil_div(panels.d, kDepth);
  alignas(64) float scores[2][4 * kScores];
  // One pair of groups ahead, so that the matrix unit works while the maxima of the last pair are taken.
  multiply(panels.tiles + first * steps * kStep, x, steps, scores[0]);
  int now = 0;
  for (int64_t g = first; g < last; g += 2, now ^= 1) {
    if (g + 2 < last) multiply(panels.tiles + (g + 2) * steps * kStep, x, steps, scores[now ^ 1]);
    for (int64_t i = 0; i < 2 && g + i < last; ++i) {
      const float* h = panels.h + (g + i) * kGroup;
      const Vec left = column_max(scores[now] + 2 * i * kScores, h);
      const Vec right = column_max(scores[now] + (2 * i + 1) * kScores, h);
      offer(left, g + i, 0, panels, state);
      offer(right, g + i, Vec::kWidth, panels, state);
    }
  }
  _tile_release();
}

// Pairs of coordinates side by side, (steps, half, kDepth / 2, 16, 2) bfloat16: the order the matrix unit wants.
static void prepare(const float* x, int64_t d, void* out, double* residual_squares) {
  uint16_t* tile = static_cast<uint16_t*>(out);
  double residual[kTile] = {};
  for (int64_t c = 0; c < ceil_div(d, kDepth) * kDepth; ++c) {
    uint16_t* row = tile + (c / kDepth) * 2 * kStep + (c % kDepth) / 2 * kDepth + c % 2;
    for (int l = 0; l < kTile; ++l) {
      const float v = c < d ? x[c * kTile + l] : 0.0f;
      const uint16_t b = to_bfloat16(v);
      const double r = double(v) - double(from_bfloat16(b));
      residual[l] += r * r;
      row[(l / Vec::kWidth) * kStep + (l % Vec::kWidth) * 2] = b;
    }
  }
  for (int l = 0; l < kTile; ++l) residual_squares[l] = residual[l];
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
