// An interval that points cut down to a power cell of the line.
#pragma once

#include <cstdint>
#include <vector>

namespace otgen {

// Corner 0 is the lower end, corner 1 the upper one.
class Interval {
 public:
  static constexpr int kDim = 1;

  Interval() = default;
  Interval(double low, double high) : x_{low, high}, label_{-1, -2} {}

  int corners() const { return int(label_.size()); }
  bool empty() const { return label_.empty(); }
  const double* coordinate(int) const { return x_; }
  const std::vector<int64_t>& labels() const { return label_; }

  void clear() { label_.clear(); }

  // Keeps the part where f <= 0, for f given at the ends and affine between them; the cut gets `label`.
  void clip(const double* f, int64_t label) {
    if (f[0] > 0 && f[1] > 0) return clear();
    const int end = f[1] > 0;
    x_[end] = x_[0] + f[0] / (f[0] - f[1]) * (x_[1] - x_[0]);
    label_[end] = label;
  }

 private:
  double x_[2] = {};
  std::vector<int64_t> label_;
};

}  // namespace otgen
