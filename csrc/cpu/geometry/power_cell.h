// One power cell at a time: the domain, cut by every target that takes some of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
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
  // the domain's own sides stay as they are. Valid until the next call.
  const Body& make(const Body& domain, int64_t position) {
    position_ = position;
    body_ = domain;
    slack_ = std::abs(tree_.h()[position]);
    for (int axis = 0; axis < kDim; ++axis) {
      reach_[axis] = 0;
      for (int k = 0; k < body_.corners(); ++k)
        reach_[axis] = std::max(reach_[axis], std::abs(body_.coordinate(axis)[k]));
      slack_ += reach_[axis] * std::abs(tree_.y(axis)[position]);
    }
    slack_ *= SiteTree::kRounding;
    update();
    int64_t node = leaf_of(position);
    cut_by_leaf(node);
    // Upwards from the target's own leaf: its neighbours come first, and most of the rest is ruled out by the bounds.
    for (; node > 1 && !body_.empty(); node /= 2) visit(node ^ 1);
    return body_;
  }

 private:
  int64_t leaf_of(int64_t position) const {
    int64_t node = 1;
    while (node < tree_.first_leaf()) node = 2 * node + (position >= tree_.begin(2 * node + 1));
    return node;
  }

  void visit(int64_t node) {
    if (body_.empty() || !rises_above(tree_.node(node))) return;
    if (node >= tree_.first_leaf()) return cut_by_leaf(node);
    const bool second = distance(tree_.node(2 * node + 1)) < distance(tree_.node(2 * node));
    visit(2 * node + second);
    visit(2 * node + !second);
  }

  // Whether the bound on a node's scores reaches the target's own score at a corner, up to rounding: what ties may be a
  // duplicate, and what is lower by a rounding may cut off much from a cell whose rivals are all but duplicates.
  bool rises_above(const SiteTree::Node& node) const {
    const int n = body_.corners();
    double slack = 0;
    for (int axis = 0; axis < kDim; ++axis)
      slack += (reach_[axis] + std::abs(node.c[axis])) * std::max(std::abs(node.low[axis]), std::abs(node.high[axis]));
    const double top = node.top + node.slack + slack_ + SiteTree::kRounding * slack;
    const double* x[kDim];
    for (int axis = 0; axis < kDim; ++axis) x[axis] = body_.coordinate(axis);
    const double* own = own_.data();
    int above = 0;
    for (int k = 0; k < n; ++k) {
      double bound = top;
      for (int axis = 0; axis < kDim; ++axis) {
        const double e = x[axis][k] - node.c[axis], low = e * node.low[axis], high = e * node.high[axis];
        bound += low > high ? low : high;
      }
      above |= bound >= own[k];
    }
    return above != 0;
  }

  void cut_by_leaf(int64_t leaf) {
    // The nearest first: they leave little for the others to cut.
    const int64_t first = tree_.begin(leaf), count = tree_.end(leaf) - first;
    std::pair<double, int64_t> order[SiteTree::kLeaf];
    for (int64_t i = 0; i < count; ++i) {
      double square = 0;
      for (int axis = 0; axis < kDim; ++axis) {
        const double step = tree_.y(axis)[first + i] - tree_.y(axis)[position_];
        square += step * step;
      }
      int64_t at = i;
      for (; at > 0 && order[at - 1].first > square; --at) order[at] = order[at - 1];
      order[at] = {square, first + i};
    }
    for (int64_t i = 0; i < count && !body_.empty(); ++i)
      if (order[i].second != position_) cut_by(order[i].second);
  }

  // Square of the distance between the target and a node's box.
  double distance(const SiteTree::Node& node) const {
    double square = 0;
    for (int axis = 0; axis < kDim; ++axis) {
      const double y = tree_.y(axis)[position_], out = std::max({node.low[axis] - y, y - node.high[axis], 0.0});
      square += out * out;
    }
    return square;
  }

  void cut_by(int64_t q) {
    const int64_t p = position_;
    const double rise = tree_.h()[q] - tree_.h()[p];
    double step[kDim];
    bool same = true;
    for (int axis = 0; axis < kDim; ++axis) {
      step[axis] = tree_.y(axis)[q] - tree_.y(axis)[p];
      same &= step[axis] == 0;
    }
    if (same) {  // of duplicates the highest has the cell, of equally high ones the first
      if (rise > 0 || (rise == 0 && tree_.number(q) < tree_.number(p))) body_.clear();
      return;
    }
    const int n = body_.corners();
    const double* x[kDim];
    for (int axis = 0; axis < kDim; ++axis) x[axis] = body_.coordinate(axis);
    double* f = f_.data();
    int cuts = 0;
    for (int k = 0; k < n; ++k) {
      double value = rise;
      for (int axis = 0; axis < kDim; ++axis) value += x[axis][k] * step[axis];
      f[k] = value;
      cuts |= value > 0;
    }
    if (!cuts) return;
    body_.clip(f, q);
    update();
  }

  void update() {
    const int n = body_.corners();
    own_.resize(n), f_.resize(n);
    for (int k = 0; k < n; ++k) {
      double score = tree_.h()[position_];
      for (int axis = 0; axis < kDim; ++axis) score += body_.coordinate(axis)[k] * tree_.y(axis)[position_];
      own_[k] = score;
    }
  }

  const SiteTree& tree_;
  int64_t position_ = 0;
  double reach_[kDim], slack_ = 0;  // of the domain: its largest coordinates; bounds the rounding of the own score
  Body body_;
  std::vector<double> own_, f_;
};

}  // namespace otgen
