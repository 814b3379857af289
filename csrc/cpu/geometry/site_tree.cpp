#include "site_tree.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "../threads.h"

namespace otgen {

namespace {

// How strongly a node's c is drawn to its parent's, in units of its targets' variance: settles what a flat or small set
// of targets leaves open, and moves nothing else by more than a percent.
constexpr double kPull = 1e-2;

constexpr int kSplitLevel = 6;  // the tree is built in 2^6 parts at a time

// Solves a x = b for a symmetric positive definite a of size d, by Cholesky factors in place; leaves x where it was if
// a is not definite.
void solve(double a[3][3], const double* b, int d, double* x) {
  double t[3];
  for (int i = 0; i < d; ++i) {
    for (int j = 0; j <= i; ++j) {
      double s = a[i][j];
      for (int k = 0; k < j; ++k) s -= a[i][k] * a[j][k];
      if (i != j)
        a[i][j] = s / a[j][j];
      else if (s > 0)
        a[i][i] = std::sqrt(s);
      else
        return;
    }
  }
  for (int i = 0; i < d; ++i) {
    t[i] = b[i];
    for (int k = 0; k < i; ++k) t[i] -= a[i][k] * t[k];
    t[i] /= a[i][i];
  }
  for (int i = d - 1; i >= 0; --i) {
    for (int k = i + 1; k < d; ++k) t[i] -= a[k][i] * t[k];
    t[i] /= a[i][i];
  }
  std::copy(t, t + d, x);
}

}  // namespace

SiteTree::SiteTree(const double* y, int64_t m, int d, int threads) : m_(m), d_(d), number_(size_t(m)), h_(size_t(m)) {
  while (ceil_div(m, leaves_) > kLeaf) leaves_ *= 2;
  nodes_.resize(size_t(2 * leaves_));
  moments_.resize(size_t(2 * leaves_));
  std::iota(number_.begin(), number_.end(), int64_t{0});
  for (int axis = 0; axis < d; ++axis) y_[axis].resize(size_t(m));
  // The nodes of one level are independent of each other.
  for (int64_t level = 1; level <= leaves_; level *= 2) {
    const bool last = level == leaves_ || level == int64_t{1} << kSplitLevel;
    parallel_for(level, {threads, {}}, [&](int64_t k, int) {
      if (!last) return build(level + k, y);
      // The whole subtree in one go.
      for (int64_t first = level + k, count = 1; first < 2 * leaves_; first *= 2, count *= 2)
        for (int64_t node = first; node < first + count; ++node) build(node, y);
    });
    if (last) break;
  }
  position_.resize(size_t(m));
  for (int64_t p = 0; p < m; ++p) position_[number_[p]] = p;
  // Sums over the targets of a node come from those of its children.
  for (int64_t node = leaves_; --node >= 1;) {
    const Moments &a = moments_[2 * node], &b = moments_[2 * node + 1];
    const double na = double(end(2 * node) - begin(2 * node)), nb = double(end(2 * node + 1) - begin(2 * node + 1));
    Moments& sum = moments_[node];
    for (int i = 0; i < d; ++i) {
      sum.mean[i] = (na * a.mean[i] + nb * b.mean[i]) / (na + nb);
      for (int j = 0; j < d; ++j)
        sum.yy[i][j] =
            a.yy[i][j] + b.yy[i][j] + na * nb / (na + nb) * (a.mean[i] - b.mean[i]) * (a.mean[j] - b.mean[j]);
    }
  }
}

int64_t SiteTree::bound(int64_t node, int64_t side) const {
  const auto level = int64_t(std::bit_floor(uint64_t(node)));
  const int64_t k = node - level + side;  // m k / level, without leaving 64 bits
  return m_ / level * k + m_ % level * k / level;
}

// Sorts a node's targets for its children, or, in a leaf, takes over their coordinates.
void SiteTree::build(int64_t node, const double* y) {
  const int64_t first = begin(node), last = end(node);
  Node& n = nodes_[node];
  for (int axis = 0; axis < d_; ++axis) {
    n.low[axis] = std::numeric_limits<double>::infinity(), n.high[axis] = -n.low[axis];
    for (int64_t p = first; p < last; ++p) {
      const double value = y[number_[p] * d_ + axis];
      n.low[axis] = std::min(n.low[axis], value), n.high[axis] = std::max(n.high[axis], value);
    }
  }
  if (node < leaves_) {
    int widest = 0;
    for (int axis = 1; axis < d_; ++axis)
      if (n.high[axis] - n.low[axis] > n.high[widest] - n.low[widest]) widest = axis;
    std::nth_element(number_.begin() + first, number_.begin() + begin(2 * node + 1), number_.begin() + last,
                     [&](int64_t a, int64_t b) {
                       const double va = y[a * d_ + widest], vb = y[b * d_ + widest];
                       return va < vb || (va == vb && a < b);
                     });
    return;
  }
  Moments& s = moments_[node];
  s = {};
  for (int axis = 0; axis < d_; ++axis) {
    for (int64_t p = first; p < last; ++p) s.mean[axis] += y_[axis][p] = y[number_[p] * d_ + axis];
    s.mean[axis] /= double(std::max<int64_t>(last - first, 1));
  }
  for (int64_t p = first; p < last; ++p)
    for (int i = 0; i < d_; ++i)
      for (int j = 0; j < d_; ++j) s.yy[i][j] += (y_[i][p] - s.mean[i]) * (y_[j][p] - s.mean[j]);
}

void SiteTree::set_heights(const double* h, int threads) {
  parallel_for(leaves_, {threads, {}}, [&](int64_t k, int) {
    const int64_t node = leaves_ + k, first = begin(node), last = end(node);
    Moments& s = moments_[node];
    s.h = 0;
    for (int64_t p = first; p < last; ++p) s.h += h_[p] = h[number_[p]];
    s.h /= double(std::max<int64_t>(last - first, 1));
    for (int i = 0; i < d_; ++i) {
      s.yh[i] = 0;
      for (int64_t p = first; p < last; ++p) s.yh[i] += (y_[i][p] - s.mean[i]) * (h_[p] - s.h);
    }
  });
  for (int64_t node = leaves_; --node >= 1;) {
    const Moments &a = moments_[2 * node], &b = moments_[2 * node + 1];
    const double na = double(end(2 * node) - begin(2 * node)), nb = double(end(2 * node + 1) - begin(2 * node + 1));
    Moments& sum = moments_[node];
    sum.h = (na * a.h + nb * b.h) / (na + nb);
    for (int i = 0; i < d_; ++i)
      sum.yh[i] = a.yh[i] + b.yh[i] + na * nb / (na + nb) * (a.mean[i] - b.mean[i]) * (a.h - b.h);
  }
  for (int64_t level = 1; level <= leaves_; level *= 2)
    parallel_for(level, {threads, {}}, [&](int64_t k, int) { fit(level + k); });
}

// A node's c, top and slack, once its parent's c is known.
void SiteTree::fit(int64_t node) {
  Node& n = nodes_[node];
  const Moments& s = moments_[node];
  const double* parent = nodes_[node / 2].c;  // of the root: nodes_[0], all zeros
  double trace = 0, a[3][3], b[3];
  for (int i = 0; i < d_; ++i) trace += s.yy[i][i];
  for (int i = 0; i < d_; ++i) {
    for (int j = 0; j < d_; ++j) a[i][j] = s.yy[i][j] + (i == j ? kPull * trace : 0.0);
    b[i] = -s.yh[i] + kPull * trace * parent[i];
    n.c[i] = parent[i];
  }
  solve(a, b, d_, n.c);
  n.top = -std::numeric_limits<double>::infinity(), n.slack = 0;
  for (int64_t p = begin(node); p < end(node); ++p) {
    double value = h_[p], terms = std::abs(value);
    for (int i = 0; i < d_; ++i) value += n.c[i] * y_[i][p], terms += std::abs(n.c[i] * y_[i][p]);
    n.top = std::max(n.top, value), n.slack = std::max(n.slack, kRounding * terms);
  }
}

}  // namespace otgen
