// AVX-512 (F, BW, DQ, VL): 32 registers of sixteen floats, so 2 x 12 accumulators: a whole group at once.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../../random.h"
#include "isa.h"

namespace otgen {
namespace avx512 {

#include "vec512.inl"

constexpr int kGroup = 12;
constexpr int kVectors = 2;
constexpr int kTargets = 12;

#include "filter.inl"
#include "norms.inl"
#include "peak.inl"
#include "sample.inl"
#include "soft.inl"

}  // namespace avx512

const Isa kAvx512 = {"avx512",
                     avx512::kGroup,
                     Packing::kFloat32,
                     avx512::filter,
                     nullptr,
                     avx512::narrow,
                     avx512::pack,
                     avx512::norms,
                     avx512::sample,
                     avx512::scores<float>,
                     avx512::scores<double>,
                     avx512::exp_rows<float>,
                     avx512::exp_rows<double>,
                     avx512::busy};

}  // namespace otgen
#endif
