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
constexpr int kGroup = 12;
constexpr int kVectors = 2;
constexpr int kTargets = 12;

#include "bytes.inl"
#include "peak.inl"

}  // namespace avx512_vnni

const Isa kAvx512Vnni = {
    .name = "avx512_vnni",
    .group = avx512_vnni::kGroup,
    .packing = Packing::kBytes,
    .fewest = avx512_vnni::kFewest,
    .other = &kAvx512,
    .filter = avx512_vnni::filter_bytes,
    .prepare = avx512_vnni::prepare_bytes,
    .narrow = avx512_vnni::narrow,
    .survivors = kAvx512.survivors,
    .best_of = kAvx512.best_of,
    .pack = avx512_vnni::pack,
    .pack_bytes = avx512_vnni::pack_bytes,
    .norms = kAvx512.norms,
    .sample = kAvx512.sample,
    .scores_f32 = kAvx512.scores_f32,
    .scores_f64 = kAvx512.scores_f64,
    .exp_f32 = kAvx512.exp_f32,
    .exp_f64 = kAvx512.exp_f64,
    .busy = avx512_vnni::busy<avx512_vnni::Words>,
};

}  // namespace otgen
#endif
