// AVX2 with FMA: 16 registers of eight floats, so 2 x 6 accumulators, two vectors of samples and a target.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../../random.h"
#include "isa.h"

namespace otgen {
namespace avx2 {

#include "vec256.inl"

constexpr int kGroup = 12;
constexpr int kVectors = 2;
constexpr int kTargets = 6;

#include "floats.inl"

}  // namespace avx2

constinit const Isa kAvx2 = avx2::table("avx2");

}  // namespace otgen
#endif
