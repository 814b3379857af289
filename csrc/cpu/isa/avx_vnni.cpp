// AVX2 with AVX-VNNI, as processors without AVX-512 have it: products of bytes, four times as many
// as of floats, or of shorts, twice as many.
#if defined(__x86_64__) && defined(OTGEN_VNNI)
#include <cpuid.h>
#include <immintrin.h>

#include <cstring>

#include "isa.h"

namespace otgen {
namespace avx_vnni {

#include "vec256.inl"
#include "words256.inl"

// In assembler because GCC 12 copies the sums of its own intrinsics to and fro: half the speed.
static inline Bytes mul_add(Bytes x, Bytes y, Bytes sum) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.v) : "x"(x.v), "x"(y.v));
  return sum;
}
static inline Shorts mul_add(Shorts x, Shorts y, Shorts sum) {
  asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum.v) : "x"(x.v), "x"(y.v));
  return sum;
}

// Measured, for the best two at solutions, for the best one there and far from them (bench/results/README.md): out of
// these shorts, and floats, are faster.
constexpr Meant kBytesMeant{{16, 512}, {40, 256}, kNone};
constexpr Range kShortsRange{4, kMostShorts};
constexpr Meant kShortsMeant{kShortsRange, kShortsRange, kShortsRange};
constexpr int kGroup = 12;  // as its base has it
constexpr int kVectors = 2;
constexpr int kTargets = 6;

#include "filter.inl"
#include "images.inl"
#include "peak.inl"
#include "whole.inl"

}  // namespace avx_vnni

bool avx_vnni_present() {
  unsigned a, b, c, d;
  constexpr unsigned kAvxVnniBit = 1u << 4;  // CPUID leaf 7, subleaf 1, EAX
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kAvxVnniBit) != 0;
}

const Isa& avx_vnni_isa() {
  using namespace avx_vnni;
  static const Isa shorts = on_whole<Shorts>(kAvx2, "avx_vnni", kShortsMeant, kAvx2);
  static const Isa bytes = on_whole<Bytes>(kAvx2, "avx_vnni", kBytesMeant, shorts);
  return bytes;
}

}  // namespace otgen
#endif
