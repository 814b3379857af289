// AVX-512 (F, BW, DQ, VL): 32 registers of sixteen floats, so 2 x 12 accumulators: a whole group at once.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../../random.h"
#include "isa.h"

namespace otgen {
namespace avx512 {

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

constexpr int kGroup = 12;
constexpr int kVectors = 2;
constexpr int kTargets = 12;

#include "filter.inl"
#include "norms.inl"
#include "sample.inl"
#include "soft.inl"

}  // namespace avx512

const Isa kAvx512 = {"avx512",
                     avx512::kGroup,
                     Packing::kFloat32,
                     avx512::filter,
                     nullptr,
                     avx512::score_group,
                     avx512::norms,
                     avx512::sample,
                     avx512::scores<float>,
                     avx512::scores<double>,
                     avx512::exp_rows<float>,
                     avx512::exp_rows<double>};

}  // namespace otgen
#endif
