// AVX-512 with VNNI: products of bytes, four times as many as of floats, or of shorts, twice as many.
#if defined(__x86_64__) && defined(OTGEN_VNNI)
#include <immintrin.h>

#include <cstring>

#include "isa.h"

namespace otgen {
namespace avx512_vnni {

#include "vec512.inl"

template <Whole whole>
struct Words {
  using Lane = int32_t;
  static constexpr Whole kWhole = whole;
  static constexpr int kProducts = int(whole);
  static constexpr int32_t kZero = zero_of(whole);
  __m512i v;
  static Words load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
  static Words broadcast(const int32_t* p) { return {_mm512_set1_epi32(*p)}; }
  void store(int32_t* p) const { _mm512_storeu_si512(p, v); }
};
using Bytes = Words<Whole::kBytes>;
using Shorts = Words<Whole::kShorts>;

// In assembler because GCC 12 copies the sums of its own intrinsics to and fro: half the speed.
static inline Bytes mul_add(Bytes x, Bytes y, Bytes sum) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(x.v), "v"(y.v));
  return sum;
}
static inline Shorts mul_add(Shorts x, Shorts y, Shorts sum) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum.v) : "v"(x.v), "v"(y.v));
  return sum;
}
template <Whole whole>
static inline Words<whole> add(Words<whole> a, Words<whole> b) {
  return {_mm512_add_epi32(a.v, b.v)};
}
template <Whole whole>
static inline Words<whole> sub(Words<whole> a, Words<whole> b) {
  return {_mm512_sub_epi32(a.v, b.v)};
}
template <Whole whole>
static inline Words<whole> max(Words<whole> a, Words<whole> b) {
  return {_mm512_max_epi32(a.v, b.v)};
}
template <Whole whole>
static inline Vec to_float(Words<whole> a) {
  return {_mm512_cvtepi32_ps(a.v)};
}

// Measured, for the best two at solutions, for the best one there and far from them (bench/results/README.md): out of
// these shorts, and floats, are faster.
constexpr Meant kBytesMeant{{24, 512}, {40, 256}, kNone};
constexpr Range kShortsRange{4, kMostShorts};
constexpr Meant kShortsMeant{kShortsRange, kShortsRange, {40, 512}};
constexpr int kGroup = 12;  // as its base has it
constexpr int kVectors = 2;
constexpr int kTargets = 12;

#include "filter.inl"
#include "images.inl"
#include "peak.inl"
#include "whole.inl"

}  // namespace avx512_vnni

const Isa& avx512_vnni_isa() {
  using namespace avx512_vnni;
  static const Isa shorts = on_whole<Shorts>(kAvx512, "avx512_vnni", kShortsMeant, kAvx512);
  static const Isa bytes = on_whole<Bytes>(kAvx512, "avx512_vnni", kBytesMeant, shorts);
  return bytes;
}

}  // namespace otgen
#endif
