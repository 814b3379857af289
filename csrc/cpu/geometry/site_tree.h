// A balanced kd-tree over the targets that finds every target whose plane rises above a given one somewhere in a convex
// body, without looking at most of the others.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "../../common.h"

namespace otgen {

// Node 1 is the root, node k has the children 2k and 2k + 1, and the nodes of the last level are the leaves. Who
// searches goes kStride levels at a time: node k's descendants there are a row of nodes, 2^kStride k and the next ones.
//
// Heights change from call to call, targets do not. A node's bound on the scores <x, y_j> + h_j of its targets,
//   max_j (h_j + <c, y_j>) + max over the targets' box of <x - c, y>,
// holds for any c and is tight where h_j + <c, y_j> is nearly constant; -c is the gradient of the plane that fits the
// heights best, so c lies about where the cells of the node's targets lie. The second term's slack then falls with the
// square of the node's size.
class SiteTree {
 public:
  static constexpr int kMaxDim = 3;
  static constexpr int64_t kLeaf = 8;  // targets in a leaf, at most
  static constexpr int kStride = 2;
  static constexpr int kWidth = 1 << kStride;

  SiteTree(const double* y, int64_t m, int d, int threads);

  // The bounds for heights h, (m,).
  void set_heights(const double* h, int threads);

  int64_t size() const { return m_; }
  int dim() const { return d_; }
  // Targets of a node, as positions in the tree's order.
  int64_t begin(int64_t node) const { return bound(node, 0); }
  int64_t end(int64_t node) const { return bound(node, 1); }
  int64_t first_leaf() const { return leaves_; }

  // By position: the target's number (and back), its coordinates and its height; the columns of these can be read kLeaf
  // beyond their end, those of nodes kWidth. Of exact duplicates the highest has a height, of equally high ones the
  // first; the others have kHidden, which makes their scores -inf, and so no cell.
  int64_t number(int64_t position) const { return number_[position]; }
  int64_t position(int64_t number) const { return position_[number]; }
  const double* y(int axis) const { return y_[axis].data(); }
  const double* h() const { return h_.data(); }
  static constexpr double kHidden = -std::numeric_limits<double>::infinity();
  double largest(int axis) const { return largest_[axis]; }  // coordinate of a target, absolute

  // Bounds on the rounding of a score are this many times the sum of the absolute values of its terms.
  static constexpr double kRounding = 16 * std::numeric_limits<double>::epsilon();

  // By node: max_j (h_j + <c, y_j>), with what rounding may add to it and to <c, y> for any target; c; the box of the
  // targets. The first two are there for the leaves and every kStride levels up.
  const double* top() const { return top_.data(); }
  const double* c(int axis) const { return c_[axis].data(); }
  const double* low(int axis) const { return low_[axis].data(); }
  const double* high(int axis) const { return high_[axis].data(); }

 private:
  int64_t bound(int64_t node, int64_t side) const;
  void build(int64_t node, const double* y);
  void find_duplicates();
  void hide_duplicates(const double* h);
  void fit(int64_t node, int64_t parent);

  int64_t m_;
  int d_;
  int64_t leaves_ = 1;
  std::vector<int64_t> number_, position_;
  std::vector<std::pair<int64_t, int64_t>> duplicates_;  // the first position at a place and another one there, sorted
  std::vector<double> y_[kMaxDim], h_;
  double largest_[kMaxDim] = {};
  std::vector<double> top_, c_[kMaxDim], low_[kMaxDim], high_[kMaxDim];
  struct Moments {
    double mean[kMaxDim];
    double yy[kMaxDim][kMaxDim];  // sums of products of deviations from the mean
    double h, yh[kMaxDim];        // mean height, and sums of products with the deviations
  };
  std::vector<Moments> moments_;
};

}  // namespace otgen
