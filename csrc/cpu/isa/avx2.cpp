// AVX2 with FMA: 16 registers of eight floats, so 2 x 6 accumulators, two vectors of samples and a target, and one for
// the products of shorts, sixteen in an instruction, which another one adds.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "../../random.h"
#include "isa.h"

namespace otgen {
namespace avx2 {

#include "vec256.inl"
#include "words256.inl"

// In assembler because GCC 12 copies the sums to and fro.
static inline Shorts mul_add(Shorts x, Shorts y, Shorts sum) {
  __m256i products;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum.v), "=&x"(products) : "x"(x.v), "x"(y.v));
  return sum;
}

// Measured, as for VNNI (bench/results/README.md): in fewer dimensions, and for images, floats are as fast.
constexpr Range kShortsRange{6, kMostShorts};
constexpr Meant kShortsMeant{kShortsRange, kShortsRange, kNone};
constexpr int kGroup = 12;
constexpr int kVectors = 2;
constexpr int kTargets = 6;

#include "floats.inl"
#include "whole.inl"

}  // namespace avx2

constinit const Isa kAvx2 = avx2::table("avx2");

const Isa& avx2_isa() {
  using namespace avx2;
  static const Isa shorts = on_whole<Shorts>(kAvx2, "avx2", kShortsMeant, kAvx2);
  return shorts;
}

}  // namespace otgen
#endif
