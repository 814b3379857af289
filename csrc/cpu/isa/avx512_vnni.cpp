// AVX-512 with VNNI: products of bytes, four times as many as of floats, or of shorts, twice
// as many.
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
static inline Words<whole> max(Words<whole> a, Words<whole> b) {
  return {_mm512_max_epi32(a.v, b.v)};
}
template <Whole whole>
static inline Vec to_float(Words<whole> a) {
  return {_mm512_cvtepi32_ps(a.v)};
}

// Measured: below these shorts, and floats, are faster (bench/ops.py).
constexpr int64_t kFewestBytes = 40, kFewestShorts = 4;
constexpr int kGroup = 12;  // as its base has it
constexpr int kVectors = 2;
constexpr int kTargets = 12;

#include "peak.inl"
#include "whole.inl"

}  // namespace avx512_vnni

namespace {

template <class V>
Isa with(Packing packing, int64_t fewest, const Isa* other) {
  Isa isa = kAvx512;
  isa.name = "avx512_vnni";
  isa.packing = packing;
  isa.fewest = fewest, isa.other = other;
  isa.filter = avx512_vnni::filter_whole<V>;
  isa.prepare = avx512_vnni::prepare_whole<V>;
  isa.narrow = avx512_vnni::narrow;
  isa.pack = avx512_vnni::pack;
  isa.pack_whole = avx512_vnni::pack_whole<V>;
  isa.busy = avx512_vnni::busy<V>;
  return isa;
}

const Isa kWithShorts = with<avx512_vnni::Shorts>(Packing::kShorts, avx512_vnni::kFewestShorts, &kAvx512);

}  // namespace

const Isa kAvx512Vnni = with<avx512_vnni::Bytes>(Packing::kBytes, avx512_vnni::kFewestBytes, &kWithShorts);

}  // namespace otgen
#endif
