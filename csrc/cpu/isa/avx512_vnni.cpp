// AVX-512 with VNNI: products of bytes, four times as many as of floats.
#if defined(__x86_64__) && defined(OTGEN_VNNI)
#include <immintrin.h>

#include <cstring>

#include "isa.h"

namespace otgen {
namespace avx512_vnni {

#include "vec512.inl"

struct Words {
  using Lane = int32_t;
  static constexpr int kProducts = 4;
  __m512i v;
  static Words load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
  static Words broadcast(const int32_t* p) { return {_mm512_set1_epi32(*p)}; }
  void store(int32_t* p) const { _mm512_storeu_si512(p, v); }
};

// In assembler because GCC 12 copies the sums of its own intrinsic to and fro: half the speed.
static inline Words mul_add(Words x, Words y, Words sum) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(x.v), "v"(y.v));
  return sum;
}
static inline Words max(Words a, Words b) { return {_mm512_max_epi32(a.v, b.v)}; }
static inline Vec to_float(Words a) { return {_mm512_cvtepi32_ps(a.v)}; }

constexpr int64_t kFewest = 4;  // measured: below it floats are faster (bench/ops.py)
constexpr int kGroup = 12;      // as its base has it
constexpr int kVectors = 2;
constexpr int kTargets = 12;

#include "bytes.inl"
#include "peak.inl"

}  // namespace avx512_vnni

const Isa kAvx512Vnni = [] {
  Isa isa = kAvx512;
  isa.name = "avx512_vnni";
  isa.packing = Packing::kBytes;
  isa.fewest = avx512_vnni::kFewest, isa.other = &kAvx512;
  isa.filter = avx512_vnni::filter_bytes;
  isa.prepare = avx512_vnni::prepare_bytes;
  isa.narrow = avx512_vnni::narrow;
  isa.pack = avx512_vnni::pack;
  isa.pack_bytes = avx512_vnni::pack_bytes;
  isa.busy = avx512_vnni::busy<avx512_vnni::Words>;
  return isa;
}();

}  // namespace otgen
#endif
