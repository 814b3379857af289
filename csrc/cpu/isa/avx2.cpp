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

#include "filter.inl"
#include "images.inl"
#include "norms.inl"
#include "peak.inl"
#include "prune.inl"
#include "sample.inl"
#include "soft.inl"

}  // namespace avx2

const Isa kAvx2 = {
    .name = "avx2",
    .group = avx2::kGroup,
    .packing = Packing::kFloat32,
    .filter = avx2::filter,
    .filter_images = avx2::filter_images,
    .score_group = avx2::score_group,
    .narrow = avx2::narrow,
    .survivors = avx2::survivors,
    .best_of = avx2::best_of,
    .pack = avx2::pack,
    .norms = avx2::norms,
    .sample = avx2::sample,
    .scores_f32 = avx2::scores<float>,
    .scores_f64 = avx2::scores<double>,
    .exp_f32 = avx2::exp_rows<float>,
    .exp_f64 = avx2::exp_rows<double>,
    .busy = avx2::busy<avx2::Vec>,
};

}  // namespace otgen
#endif
