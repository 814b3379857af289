// A convex polyhedron that half-spaces cut down to a power cell.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace otgen {

// Three planes meet in every corner, also where more would do so but for rounding, and three edges leave it: end
// 4 k + i of corner k lies opposite to its plane i, on the two others; its twin is the other end of the edge. The
// planes of a corner are in counter-clockwise order seen from outside. Only `close` makes loops of corners of it.
//
// A cut looks at the sign of f at every corner, once. Each edge from a corner inside to one outside carries a new
// corner; along the old faces each new corner leads to another one, and the cycles of this permutation close the solid
// again, whatever rounding made of the signs. So a cut costs as much as it takes away, and a look at every corner.
class Polyhedron {
 public:
  static constexpr int kDim = 3;

  Polyhedron() = default;

  // A box, whose sides have the labels -1 (lowest along axis 0), -2 (highest along axis 0), ..., -6.
  Polyhedron(const double* low, const double* high) {
    reserve(8);
    count_ = 8;
    for (int k = 0; k < 8; ++k) {
      // Seen from outside the axes turn the other way at every other corner.
      const bool turned = ((k ^ (k >> 1) ^ (k >> 2)) & 1) == 0;
      for (int i = 0; i < kDim; ++i) {
        const int axis = turned ? (kDim - i) % kDim : i;
        x_[axis][k] = k >> axis & 1 ? high[axis] : low[axis];
        plane_[4 * k + i] = 2 * axis + (k >> axis & 1);
        // The edge along this axis; its other end has the axes in the other order.
        twin_[4 * k + i] = 4 * (k ^ (1 << axis)) + (kDim - i) % kDim;
      }
    }
    plane_label_ = {-1, -2, -3, -4, -5, -6};
    close();
  }

  int corners() const { return count_; }
  bool empty() const { return count_ == 0; }
  const double* coordinate(int axis) const { return x_[axis].data(); }

  // Of a closed polyhedron: face k is the loop of corners face(k, size)[0, ..., size - 1], counter-clockwise seen from
  // outside, in the plane labels()[k].
  int faces() const { return int(label_.size()); }
  const std::vector<int64_t>& labels() const { return label_; }
  const int* face(int k, int& size) const {
    size = start_[k + 1] - start_[k];
    return loop_.data() + start_[k];
  }

  void clear() { count_ = 0; }

  // Keeps the part where f <= 0, for f given at the corners and affine between them; the cut gets `label`.
  void clip(const double* f, int64_t label) {
    const int n = count_;
    int gone = 0;
    for (int k = 0; k < n; ++k) {  // without branches, which no processor could foresee
      outside_[gone] = k;
      gone += f[k] > 0;
    }
    if (gone == n) return clear();
    reserve(n + 3 * gone);
    cut_.clear();
    for (int i = 0; i < gone; ++i)
      for (int b = outside_[i], end = 4 * b; end < 4 * b + 3; ++end) {
        const int a = twin_[end] / 4;
        if (f[a] > 0) continue;
        const double t = f[a] / (f[a] - f[b]);
        for (auto& x : x_) x[count_] = x[a] + t * (x[b] - x[a]);
        plane_[4 * count_] = kNone, plane_[4 * count_ + 1] = plane_[next(end)];
        plane_[4 * count_ + 2] = plane_[next(next(end))];
        twin_[4 * count_] = twin_[end], twin_[twin_[end]] = 4 * count_;
        number_[end] = count_++;
        cut_.push_back(end);
      }
    for (const int end : cut_) {
      int at = next(end);  // along the face of the new corner's last plane, to where that comes back inside
      while (f[twin_[at] / 4] > 0) at = next(twin_[at]);
      join(4 * number_[end] + 1, 4 * number_[at] + 2);
    }
    for (int k = n; k < count_; ++k) {
      if (plane_[4 * k] != kNone) continue;
      for (int at = k; plane_[4 * at] == kNone; at = twin_[4 * at + 1] / 4) plane_[4 * at] = int(plane_label_.size());
      plane_label_.push_back(label);
    }
    remove(f, n, gone);
  }

  void close() {
    loop_.clear(), label_.clear(), start_.assign(1, 0);
    seen_.assign(size_t(4 * count_), false);
    for (int first = 0; first < 4 * count_; ++first) {
      if (first % 4 == 3 || seen_[first]) continue;
      for (int at = first; !seen_[at]; at = next(twin_[next(at)])) {
        seen_[at] = true;
        loop_.push_back(at / 4);
      }
      start_.push_back(int(loop_.size()));
      label_.push_back(plane_label_[plane_[first]]);
    }
  }

 private:
  static constexpr int kNone = -1;

  static int next(int end) { return end % 4 < 2 ? end + 1 : end - 2; }

  void join(int a, int b) { twin_[a] = b, twin_[b] = a; }

  void reserve(int corners) {
    const size_t have = x_[0].size(), wanted = size_t(corners);
    if (wanted <= have) return;
    const size_t size = std::max(wanted, 2 * have);
    for (auto& x : x_) x.resize(size);
    for (auto* ends : {&plane_, &twin_, &number_}) ends->resize(4 * size);
    outside_.resize(size);
  }

  // The last corners take the places of those outside, which are among the first n.
  void remove(const double* f, int n, int gone) {
    int last = count_ - 1;
    for (int i = 0; i < gone; ++i) {
      const int k = outside_[i];
      while (k < last && last < n && f[last] > 0) --last;
      if (last <= k) break;
      for (auto& x : x_) x[k] = x[last];
      for (int end = 0; end < 3; ++end) {
        plane_[4 * k + end] = plane_[4 * last + end];
        join(4 * k + end, twin_[4 * last + end]);
      }
      --last;
    }
    count_ -= gone;
  }

  int count_ = 0;
  std::vector<double> x_[kDim];
  std::vector<int> plane_, twin_;     // of the ends
  std::vector<int64_t> plane_label_;  // also of planes that later cuts took away
  std::vector<int> outside_, cut_, number_;
  std::vector<int> loop_, start_{0};
  std::vector<int64_t> label_;
  std::vector<char> seen_;
};

}  // namespace otgen
