// A convex polygon that half-planes cut down to a power cell.
#pragma once

#include <cstdint>
#include <vector>

namespace otgen {

// Corner k is (x[0][k], x[1][k]), counter-clockwise; the edge from corner k to the next lies on the line `label[k]`.
class Polygon {
 public:
  static constexpr int kDim = 2;

  int corners() const { return int(label_.size()); }
  bool empty() const { return label_.empty(); }
  const double* coordinate(int axis) const { return x_[axis].data(); }
  const std::vector<int64_t>& labels() const { return label_; }

  void clear() { x_[0].clear(), x_[1].clear(), label_.clear(); }
  void add(double x0, double x1, int64_t label) { x_[0].push_back(x0), x_[1].push_back(x1), label_.push_back(label); }

  // Keeps the part where f <= 0, for f given at the corners and affine between them; the cut gets `label`.
  void clip(const double* f, int64_t label) {
    const int n = corners();
    for (auto& axis : spare_) axis.clear();
    spare_label_.clear();
    const auto push = [&](double a, double b, int64_t l) {
      spare_[0].push_back(a), spare_[1].push_back(b), spare_label_.push_back(l);
    };
    for (int k = 0; k < n; ++k) {
      const int next = k + 1 < n ? k + 1 : 0;
      const bool inside = !(f[k] > 0), stays = !(f[next] > 0);
      if (inside) push(x_[0][k], x_[1][k], label_[k]);
      if (inside == stays) continue;
      const double t = f[k] / (f[k] - f[next]);
      push(x_[0][k] + t * (x_[0][next] - x_[0][k]), x_[1][k] + t * (x_[1][next] - x_[1][k]),
           inside ? label : label_[k]);
    }
    for (int axis = 0; axis < kDim; ++axis) x_[axis].swap(spare_[axis]);
    label_.swap(spare_label_);
    if (corners() < 3) clear();
  }

 private:
  std::vector<double> x_[kDim], spare_[kDim];
  std::vector<int64_t> label_, spare_label_;
};

}  // namespace otgen
