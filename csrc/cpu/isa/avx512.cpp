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

#include "floats.inl"

}  // namespace avx512

constinit const Isa kAvx512 = avx512::table("avx512");

}  // namespace otgen
#endif
