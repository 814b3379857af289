// In few dimensions most targets can be ruled out for many samples at once.
//
// The samples of a block are sorted along a curve, so that a tile of them, and a run of tiles, lies in a small box.
// With centre c and half widths r of a box, the largest value of s_j - s_i in it is
//   s_j(c) - s_i(c) + sum_k r_k |y_jk - y_ik|;
// where it is negative, target j loses to its rival i everywhere in the box, and a target that loses to k rivals is
// none of the k best of any sample there. Rivals are the best targets at the centre of the box and at those of its
// faces, among the targets that the box around this one has left: from box to smaller box their lists get shorter, so
// that the cost of a sample grows like log m. The targets that a tile is left with are scored in float32 for each of
// its samples.
//
// For k > 2 so few rivals do not do. Of the smallest values in the box of s_j - s_i, for a rival i and all targets j,
// let f be the k-th largest: where the largest value of s_j - s_i is below f, target j loses to k others everywhere.
//
// Rounding. Targets are centred, scaled and rounded to float32 as everywhere (search.h): a float32 score of a sample x
// is within E(x) = alpha + beta |x| of the true one, and so is the float64 score that decides. E also bounds what
// rounding does to each of two scores at c, to the sum over r, which has the terms of a score at r, and to their sum.
// So a target is ruled out only by 8 E(|c| + |r|): twice four of them, with room to spare. Against f it is by 16: two
// scores at c (that of i is the same in both), two sums over r and two additions to each are rounded. A box with a
// sample that is not finite, or huge, has no finite centre, and rules nothing out.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "search.h"

namespace otgen {

constexpr int kPrunedDim = 5;            // coordinates up to which boxes are worth their while: measured (bench/ops.py)
constexpr int kPrunedDimOfMany = 3;      // likewise where more than two targets are wanted
constexpr int64_t kPrunedTargets = 512;  // targets from which they are
constexpr int64_t kPrunedBest = 64;      // wanted, at most
constexpr int kPrunedTiles = 1 << 11;    // in a block, at most: the more samples, the smaller the boxes

// Some of the targets, by coordinate: y is (d, stride), h (stride,); 0 and -inf past the last, to whole vectors.
struct TargetList {
  int64_t count = 0, stride = 0;
  std::vector<float> y, h;
  std::vector<int32_t> number;  // of the target

  void resize(int64_t size, int64_t d);
};

// The points between low and high, both (d,).
struct Box {
  float low[kPrunedDim], high[kPrunedDim];
};

// Sorts points along a Morton curve, on which neighbours are near each other.
class Curve {
 public:
  explicit Curve(int64_t d);
  // Numbers of the points in their order; coordinate k of point i is x(i, k).
  template <class X>
  const std::vector<int32_t>& sort(int64_t count, const X& x);

 private:
  int64_t d_;
  int bits_;                      // of a coordinate
  std::vector<uint32_t> spread_;  // those of a number, d places apart
  std::vector<uint32_t> keys_, other_keys_;
  std::vector<int32_t> order_, other_order_;
};

// The targets of a search.
struct Pruner {
  // `order` has the numbers of the targets as the panels have them.
  Pruner(const Panels& panels, const std::vector<int64_t>& order, const Isa& isa, int64_t k, float huge_norm);
  float error(const Box& box) const;  // E(|c| + |r|)

  int64_t d, k;
  const Isa& isa;
  float far;  // a coordinate as large may belong to a sample too large to be filtered
  double alpha = 0, beta = 0;
  TargetList all;
};

// The work space of one thread.
class Pruning {
 public:
  explicit Pruning(const Pruner& pruner);

  // Calls found(pairs) with some pairs at a time, until all were there in which the target can be among the k best of
  // the sample. x is (tiles, d, kTile), a row the number of a sample there.
  using Found = std::function<void(const std::vector<Candidate>& pairs)>;
  void run(const float* x, int tiles, const Found& found);

 private:
  void place(const float* x, int tiles);
  void descend(const TargetList& list, int first, int last, size_t depth);
  const TargetList& narrow(const TargetList& list, const Box& box, size_t depth);
  void score(const TargetList& list, int tile);

  const Pruner& pruner_;
  const Found* found_ = nullptr;
  Curve curve_;
  const std::vector<int32_t>* order_ = nullptr;     // of the samples
  LineVector<float> sorted_;                        // their tiles in that order
  std::vector<Box> boxes_;                          // of those tiles
  std::vector<std::unique_ptr<TargetList>> lists_;  // by depth
  std::vector<float> scores_;
  std::vector<int32_t> kept_;
  std::vector<uint32_t> masks_;
  std::vector<Candidate> candidates_;
};

}  // namespace otgen
