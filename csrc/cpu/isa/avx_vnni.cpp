// AVX2 with AVX-VNNI, as processors without AVX-512 have it: products of bytes, four times as many as of floats.
#if defined(__x86_64__) && defined(OTGEN_VNNI)
#include <cpuid.h>
#include <immintrin.h>

#include <cstring>

#include "isa.h"

namespace otgen {
namespace avx_vnni {

#include "vec256.inl"

struct Words {
  using Lane = int32_t;
  static constexpr int kProducts = 4;
  __m256i v;
  static Words load(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  static Words broadcast(const int32_t* p) { return {_mm256_set1_epi32(*p)}; }
  void store(int32_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
};

// In assembler because GCC 12 copies the sums of its own intrinsic to and fro: half the speed.
static inline Words mul_add(Words x, Words y, Words sum) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.v) : "x"(x.v), "x"(y.v));
  return sum;
}
static inline Words max(Words a, Words b) { return {_mm256_max_epi32(a.v, b.v)}; }
static inline Vec to_float(Words a) { return {_mm256_cvtepi32_ps(a.v)}; }

constexpr int64_t kFewest = 4;  // measured: below it floats are faster (bench/ops.py)
constexpr int kGroup = 12;      // as its base has it
constexpr int kVectors = 2;
constexpr int kTargets = 6;

#include "bytes.inl"
#include "peak.inl"

}  // namespace avx_vnni

bool avx_vnni_present() {
  unsigned a, b, c, d;
  constexpr unsigned kAvxVnniBit = 1u << 4;  // CPUID leaf 7, subleaf 1, EAX
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kAvxVnniBit) != 0;
}

const Isa kAvxVnni = [] {
  Isa isa = kAvx2;
  isa.name = "avx_vnni";
  isa.packing = Packing::kBytes;
  isa.fewest = avx_vnni::kFewest, isa.other = &kAvx2;
  isa.filter = avx_vnni::filter_bytes;
  isa.prepare = avx_vnni::prepare_bytes;
  isa.narrow = avx_vnni::narrow;
  isa.pack = avx_vnni::pack;
  isa.pack_bytes = avx_vnni::pack_bytes;
  isa.busy = avx_vnni::busy<avx_vnni::Words>;
  return isa;
}();

}  // namespace otgen
#endif
