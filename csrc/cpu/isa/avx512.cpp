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
#include "images.inl"
#include "norms.inl"
#include "peak.inl"
#include "prune.inl"
#include "sample.inl"
#include "soft.inl"

}  // namespace avx512

const Isa kAvx512 = {
    .name = "avx512",
    .group = avx512::kGroup,
    .packing = Packing::kFloat32,
    .filter = avx512::filter,
    .filter_images = avx512::filter_images,
    .score_group = avx512::score_group,
    .narrow = avx512::narrow,
    .survivors = avx512::survivors,
    .best_of = avx512::best_of,
    .pack = avx512::pack,
    .norms = avx512::norms,
    .sample = avx512::sample,
    .scores_f32 = avx512::scores<float>,
    .scores_f64 = avx512::scores<double>,
    .exp_f32 = avx512::exp_rows<float>,
    .exp_f64 = avx512::exp_rows<double>,
    .busy = avx512::busy<avx512::Vec>,
};

}  // namespace otgen
#endif
