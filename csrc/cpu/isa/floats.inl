// All inner loops of an instruction set whose filter reads float32, from its Vec, kGroup, kVectors and kTargets.
#include "filter.inl"
#include "images.inl"
#include "norms.inl"
#include "peak.inl"
#include "prune.inl"
#include "sample.inl"
#include "soft.inl"

static constexpr Isa table(const char* name) {
  return {
      .name = name,
      .group = kGroup,
      .packing = Packing::kFloat32,
      .filter = filter,
      .filter_images = filter_images,
      .score_group = score_group,
      .narrow = narrow,
      .survivors = survivors,
      .best_of = best_of,
      .pack = pack,
      .norms = norms,
      .sample = sample,
      .scores_f32 = scores<float>,
      .scores_f64 = scores<double>,
      .exp_f32 = exp_rows<float>,
      .exp_f64 = exp_rows<double>,
      .busy = busy<Vec>,
  };
}
