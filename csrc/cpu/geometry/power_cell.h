// One power cell at a time: the domain, cut by every target that takes some of it.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "site_tree.h"

namespace otgen {

template <class Body>
class PowerCell {
  static constexpr int kDim = Body::kDim;

 public:
  explicit PowerCell(const SiteTree& tree) : tree_(tree) {}

  // The cell of the target at a position of the tree, within the domain; labels of its facets are positions, those of
  // the domain's own sides stay as they are. It is cut by those at `near` first. Valid until the next call.
  const Body& make(const Body& domain, int64_t position, std::span<const int64_t> near = {}) {
    position_ = position;
    h_ = tree_.h()[position];
    body_ = domain;
    if (h_ == SiteTree::kHidden) {
      body_.clear();
      if constexpr (kDim == 3) body_.close();
      return body_;
    }
    enclose();
    slack_ = std::abs(h_);
    for (int axis = 0; axis < kDim; ++axis) {
      y_[axis] = tree_.y(axis)[position];
      reach_[axis] = std::max(std::abs(low_[axis]), std::abs(high_[axis]));
      slack_ += 2 * reach_[axis] * tree_.largest(axis);
    }
    slack_ *= SiteTree::kRounding;
    for (size_t i = 0; i < near.size() && !body_.empty(); ++i) {
      near_ = near.first(i);
      if (!is_near(near[i])) cut_by(near[i]);
    }
    near_ = near;
    // Upwards from the target's own leaf: its neighbours come first, and most of the rest is ruled out by the bounds.
    leaves_ = 0;
    int64_t node = leaf_of(position);
    cut_by_leaf(node);
    for (; node > 1 && !body_.empty(); node /= kWidth) {
      const bool top = node < kWidth;
      const int64_t row = top ? int64_t(std::bit_floor(uint64_t(node))) : node - node % kWidth;
      visit(row, top ? int(row) : kWidth, node);
    }
    if constexpr (kDim == 3) {
      if (is_point()) body_.clear();
      body_.close();
    }
    return body_;
  }

 private:
  static constexpr int kWidth = SiteTree::kWidth;
  static constexpr int kLeaf = SiteTree::kLeaf;
  // In space a cell tries the targets of some 40 leaves. One whose box lets many more pass lies askew in it, and its
  // corners are then asked as well, which takes longer.
  static constexpr int kManyLeaves = 64;

  static double larger(double a, double b) { return a > b ? a : b; }

  // What is left of an empty cell where many planes meet: narrow in all directions, it has no mass to speak of.
  static constexpr double kPoint = 1e-12;
  bool is_point() const {
    bool point = true;
    for (int axis = 0; axis < kDim; ++axis) point &= high_[axis] - low_[axis] <= kPoint * reach_[axis];
    return point;
  }

  int64_t leaf_of(int64_t position) const {
    int64_t node = 1;
    while (node < tree_.first_leaf()) node = 2 * node + (position >= tree_.begin(2 * node + 1));
    return node;
  }

  // Cuts by the targets of `count` nodes, but for one of these; the nearest nodes first.
  void visit(int64_t row, int count, int64_t but) {
    // The most that a score can be above the target's own in the box around the body. What is lower by a rounding may
    // cut off much from a cell whose rivals are all but duplicates.
    double above[kWidth], distance[kWidth];
    for (int i = 0; i < kWidth; ++i) {
      above[i] = tree_.top()[row + i] - h_ + slack_, distance[i] = 0;
      for (int axis = 0; axis < kDim; ++axis) {
        const double c = tree_.c(axis)[row + i], from = low_[axis] - c, to = high_[axis] - c;
        const double low = tree_.low(axis)[row + i] - y_[axis], high = tree_.high(axis)[row + i] - y_[axis];
        above[i] += larger(larger(from * low, from * high), larger(to * low, to * high)) - c * y_[axis];
        const double out = larger(larger(low, -high), 0);
        distance[i] += out * out;
      }
    }
    Nearest<kWidth> nearest;
    for (int i = 0; i < count; ++i)
      if (above[i] >= 0 && row + i != but) nearest.add(distance[i], row + i);
    for (int i = 0; i < nearest.size && !body_.empty(); ++i) {
      const int64_t node = nearest.item[i].second;
      if (leaves_ > kManyLeaves && !rises_at_a_corner(node)) continue;
      if (node >= tree_.first_leaf())
        cut_by_leaf(node);
      else
        visit(node * kWidth, kWidth, 0);
    }
  }

  // The same bound, at the corners.
  bool rises_at_a_corner(int64_t node) const {
    const int n = body_.corners();
    double above = tree_.top()[node] - h_ + slack_, c[kDim], low[kDim], high[kDim];
    const double* x[kDim];
    for (int axis = 0; axis < kDim; ++axis) {
      x[axis] = body_.coordinate(axis), c[axis] = tree_.c(axis)[node];
      low[axis] = tree_.low(axis)[node] - y_[axis], high[axis] = tree_.high(axis)[node] - y_[axis];
      above -= c[axis] * y_[axis];
    }
    int rises = 0;
    for (int k = 0; k < n; ++k) {
      double most = above;
      for (int axis = 0; axis < kDim; ++axis) {
        const double e = x[axis][k] - c[axis];
        most += larger(e * low[axis], e * high[axis]);
      }
      rises |= most >= 0;
    }
    return rises != 0;
  }

  // The nearest first: they leave little for the others to cut.
  void cut_by_leaf(int64_t leaf) {
    ++leaves_;
    const int64_t first = tree_.begin(leaf);
    const int count = int(tree_.end(leaf) - first);
    double above[kLeaf], distance[kLeaf];  // as of nodes; rounded like the values in `cut_by`, none of which is larger
    for (int i = 0; i < kLeaf; ++i) {
      above[i] = tree_.h()[first + i] - h_, distance[i] = 0;
      for (int axis = 0; axis < kDim; ++axis) {
        const double step = tree_.y(axis)[first + i] - y_[axis];
        above[i] += larger(low_[axis] * step, high_[axis] * step);
        distance[i] += step * step;
      }
    }
    Nearest<kLeaf> nearest;
    for (int i = 0; i < count; ++i)
      if (above[i] >= 0 && first + i != position_ && !is_near(first + i)) nearest.add(distance[i], first + i);
    for (int i = 0; i < nearest.size && !body_.empty(); ++i) cut_by(nearest.item[i].second);
  }

  // One that has cut already must not cut again, which by rounding it would.
  bool is_near(int64_t q) const {
    bool found = false;
    for (const int64_t p : near_) found |= p == q;
    return found;
  }

  void cut_by(int64_t q) {
    const double rise = tree_.h()[q] - h_;
    double step[kDim], terms = std::abs(rise);
    for (int axis = 0; axis < kDim; ++axis) {
      step[axis] = tree_.y(axis)[q] - y_[axis];
      terms += larger(-low_[axis], high_[axis]) * std::abs(step[axis]);
    }
    // No cut where all corners are outside by rounding alone. Of many planes through one point each would else cut half
    // of the corners there, each into up to three new ones, and these would grow without end.
    const double rounding = 4 * std::numeric_limits<double>::epsilon() * terms;
    const int n = body_.corners();
    const double* x[kDim];
    for (int axis = 0; axis < kDim; ++axis) x[axis] = body_.coordinate(axis);
    double* f = f_.data();
    int cuts = 0;
    for (int k = 0; k < n; ++k) {
      double value = rise;
      for (int axis = 0; axis < kDim; ++axis) value += x[axis][k] * step[axis];
      f[k] = value;
      cuts |= value > rounding;
    }
    if (!cuts) return;
    body_.clip(f, q);
    enclose();
  }

  void enclose() {
    const int n = body_.corners();
    if (int(f_.size()) < n) f_.resize(size_t(2 * n));
    for (int axis = 0; axis < kDim; ++axis) {
      const double* x = body_.coordinate(axis);
      double low = std::numeric_limits<double>::infinity(), high = -low;
      for (int k = 0; k < n; ++k) low = x[k] < low ? x[k] : low, high = x[k] > high ? x[k] : high;
      low_[axis] = low, high_[axis] = high;
    }
  }

  // A few nodes or targets, by distance.
  template <int kMost>
  struct Nearest {
    int size = 0;
    std::pair<double, int64_t> item[kMost];
    void add(double distance, int64_t which) {
      int at = size++;
      for (; at > 0 && item[at - 1].first > distance; --at) item[at] = item[at - 1];
      item[at] = {distance, which};
    }
  };

  const SiteTree& tree_;
  int64_t position_ = 0;
  std::span<const int64_t> near_;
  double y_[kDim] = {}, h_ = 0;              // of the target
  double low_[kDim] = {}, high_[kDim] = {};  // the box around the body
  double reach_[kDim] = {};                  // the largest coordinates of the domain
  double slack_ = 0;                         // what rounding may take from a bound
  int leaves_ = 0;                           // by whose targets cuts were tried
  Body body_;
  std::vector<double> f_;
};

}  // namespace otgen
