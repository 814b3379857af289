// A convex polyhedron that half-spaces cut down to a power cell.
#pragma once

#include <cstdint>
#include <vector>

namespace otgen {

// Corners are shared by faces; face k is the loop of corners loop[start[k]], ..., loop[start[k + 1] - 1], counter-
// clockwise seen from outside, in the plane `label[k]`.
//
// A cut looks at the sign of f at every corner, once. Each cut edge then carries one new corner, left in one of its two
// faces and entered in the other, so "from where a face is entered to where it was left" is a permutation of the new
// corners: its cycles close the solid again, whatever rounding made of the signs.
class Polyhedron {
 public:
  static constexpr int kDim = 3;

  int corners() const { return int(x_[0].size()); }
  int faces() const { return int(label_.size()); }
  bool empty() const { return label_.empty(); }
  const double* coordinate(int axis) const { return x_[axis].data(); }
  const std::vector<int64_t>& labels() const { return label_; }
  const int* face(int k, int& size) const {
    size = start_[k + 1] - start_[k];
    return loop_.data() + start_[k];
  }

  void clear() {
    for (auto& axis : x_) axis.clear();
    loop_.clear(), label_.clear(), start_.assign(1, 0);
  }
  int add_corner(double x0, double x1, double x2) {
    x_[0].push_back(x0), x_[1].push_back(x1), x_[2].push_back(x2);
    return corners() - 1;
  }
  template <class Corners>
  void add_face(const Corners& corners, int64_t label) {
    loop_.insert(loop_.end(), std::begin(corners), std::end(corners));
    start_.push_back(int(loop_.size()));
    label_.push_back(label);
  }

  // Keeps the part where f <= 0, for f given at the corners and affine between them; the cut gets `label`.
  void clip(const double* f, int64_t label) {
    const int n = corners();
    cut_.clear();
    old_loop_.swap(loop_), old_start_.swap(start_), old_label_.swap(label_);
    loop_.clear(), label_.clear(), start_.assign(1, 0);
    for (size_t k = 0; k < old_label_.size(); ++k) {
      const int *first = old_loop_.data() + old_start_[k], *last = old_loop_.data() + old_start_[k + 1];
      const size_t before = loop_.size();
      int left = -1, entered = -1;  // cut edges: the last one left by, the first entered by before any was left
      for (const int* p = first; p != last; ++p) {
        const int a = *p, b = p + 1 != last ? p[1] : *first;
        const bool inside = !(f[a] > 0), stays = !(f[b] > 0);
        if (inside) loop_.push_back(a);
        if (inside == stays) continue;
        const int corner = inside ? cross(a, b, f) : cross(b, a, f);
        loop_.push_back(n + corner);
        if (inside)
          left = corner;
        else if (left >= 0)
          cut_[corner].next = left;
        else
          entered = corner;
      }
      if (entered >= 0) cut_[entered].next = left;
      if (loop_.size() == before) continue;
      start_.push_back(int(loop_.size()));
      label_.push_back(old_label_[k]);
    }
    if (label_.empty()) return clear();
    for (int c = 0; c < int(cut_.size()); ++c) {
      if (cut_[c].next < 0) continue;
      for (int at = c; cut_[at].next >= 0;) {
        loop_.push_back(n + at);
        const int next = cut_[at].next;
        cut_[at].next = -1;
        at = next;
      }
      start_.push_back(int(loop_.size()));
      label_.push_back(label);
    }
    compact(f, n);
  }

 private:
  struct Cut {
    int inside, outside, next;
    double x[kDim];
  };

  // The new corner on the edge from a, inside, to b, outside.
  int cross(int a, int b, const double* f) {
    for (size_t c = 0; c < cut_.size(); ++c)
      if (cut_[c].inside == a && cut_[c].outside == b) return int(c);
    const double t = f[a] / (f[a] - f[b]);
    Cut cut{a, b, -1, {}};
    for (int axis = 0; axis < kDim; ++axis) cut.x[axis] = x_[axis][a] + t * (x_[axis][b] - x_[axis][a]);
    cut_.push_back(cut);
    return int(cut_.size()) - 1;
  }

  // Drops the corners outside and numbers the rest anew.
  void compact(const double* f, int n) {
    number_.assign(size_t(n) + cut_.size(), -1);
    int used = 0;
    for (int k = 0; k < n; ++k) {
      if (f[k] > 0) continue;
      for (auto& axis : x_) axis[used] = axis[k];
      number_[k] = used++;
    }
    for (auto& axis : x_) axis.resize(used);
    for (size_t c = 0; c < cut_.size(); ++c) number_[n + c] = add_corner(cut_[c].x[0], cut_[c].x[1], cut_[c].x[2]);
    for (int& corner : loop_) corner = number_[corner];
  }

  std::vector<double> x_[kDim];
  std::vector<int> loop_, start_{0}, old_loop_, old_start_, number_;
  std::vector<int64_t> label_, old_label_;
  std::vector<Cut> cut_;
};

}  // namespace otgen
