// The filtered search: scores of all targets in float32 or bfloat16, of which only each group's largest is looked at;
// the groups that can hold a winner are scored as score.h says.
//
// The bound. Targets are centred, y' = y - c and h' = h - h0, which moves all scores of a sample alike, and rounded to
// y^ and h^; samples are rounded to x^. A filtered score is h^ + <x^, y^> but for the rounding of the sum, which is at
// most `chain` times the sum of its terms' sizes (products.h), and
//   <x^, y^> - <x, y'> = <x^, y^ - y'> + <x^ - x, y'>.
// So, by Cauchy and Schwarz, the filtered score differs from the true one, h' + <x, y'>, by at most
//   chain (|h^| + |x^||y^|) + |h' - h^| + |x^||y' - y^| + |x - x^||y'| + underflow,
// and the float64 score of score.h from the true one by at most (d + 2) 2^-53 (|h| + |x||y|). Over a group g this is at
// most alpha_g + beta_g |x| + gamma_g |x - x^| =: E_g, where |x| also stands for |x^|, and all norms are measured, in
// float64, and rounded up. Underflow adds 2^-126 for each operation and each coordinate that a unit may flush to zero.
// If a target of group g is among the k best, the group's maximum plus E_g is not below the k-th largest of all maxima
// minus their E: different groups hold different targets. Groups that are below it are dropped. Such a floor is kept
// for k <= 2; for more, the k-th best of the targets that have been scored so far is one (shortlists.h). Where a number
// is so large that a sum might overflow, E is infinite, and so it is where one is not a number: such groups are always
// scored.
#pragma once

#include "products.h"
#include "search.h"

namespace otgen {

constexpr int kTileGroups = kTileRows / kGroup;
constexpr int kHead = kTileRows + 3 * kTileGroups;  // of a tile: heights, then alpha, beta and gamma of its groups
constexpr int64_t kTracked = 2;                     // as many best lower bounds as are kept while filtering

// Of the height of target t of group g in its head: four of each group in turn, as lanes with neighbouring groups read
// them, so that they lie in different banks.
OTGEN_HD int height_place(int g, int t) { return (t / 4 * kTileGroups + g) * 4 + t % 4; }

static_assert(kHead * sizeof(float) % 16 == 0, "is copied in pieces of 16 bytes");

// A search as filters see it. Only the exact scores (exact_score) care whether the caller's numbers are float64.
struct Filtered {
  const void* x;  // (rows, d)
  const void* y;  // (m, d)
  const void* h;  // (m,)
  bool wide_samples, wide_targets;
  int64_t rows, m, d, k;
  Packed samples, targets;
  const double* centre;  // (d + 1,)
  const float* heads;    // (tiles, kHead)
  int64_t* index;        // (rows, k)
  double* score;         // (rows, k)
  int64_t tiles, chunks;
  int depth, chunk_bytes;
  bool resident;  // all chunks of the samples stay in shared memory (filter.cu, wgmma.cu)
  int stages;     // of the pipeline (wgmma.cu)
};

// Rounds samples as the product P reads them (packing.cu).
template <class P, class X>
void pack_samples(const Samples<X>& samples, int64_t d, const Run& run);

template <class X, class T>
void search_filtered(const Samples<X>& samples, const Targets<T>& targets, const Run& run);

// Throws where there are no warp groups.
void need_warpgroups(const Run& run);

// The part of it in few dimensions, in float32 (low.cu), and the one for warp groups (wgmma.cu).
void filter_low(const Filtered& p, const Run& run);
void filter_wgmma(Filtered p, const Run& run);

}  // namespace otgen
