#include "site_tree.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "../threads.h"

namespace otgen {

namespace {

// How strongly a node's c is drawn to its parent's, in units of its targets' variance: settles what a flat or small set
// of targets leaves open, and moves nothing else by more than a percent.
constexpr double kPull = 1e-2;

constexpr int kSplitLevel = 6;       // the tree is built in 2^6 parts at a time
constexpr int64_t kAlone = 1 << 13;  // targets that one thread is done with before others have started

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

SiteTree::SiteTree(const double* y, int64_t m, int d, int threads) : m_(m), d_(d), number_(size_t(m)) {
  while (ceil_div(m, leaves_) > kLeaf) leaves_ *= 2;
  moments_.resize(size_t(2 * leaves_));
  top_.resize(size_t(2 * leaves_ + kWidth));
  std::iota(number_.begin(), number_.end(), int64_t{0});
  h_.resize(size_t(m + kLeaf));
  for (int axis = 0; axis < d; ++axis) {
    y_[axis].resize(size_t(m + kLeaf));
    for (auto* column : {&c_[axis], &low_[axis], &high_[axis]}) column->resize(top_.size());
  }
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
  for (int axis = 0; axis < d; ++axis) largest_[axis] = std::max(std::abs(low_[axis][1]), std::abs(high_[axis][1]));
  position_.resize(size_t(m));
  for (int64_t p = 0; p < m; ++p) position_[number_[p]] = p;
  find_duplicates();
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

// By a table of the first position at every place.
void SiteTree::find_duplicates() {
  const size_t size = std::bit_ceil(size_t(2 * m_));
  std::vector<int64_t> table(size, -1);
  for (int64_t p = 0; p < m_; ++p) {
    uint64_t hash = 0;
    for (int axis = 0; axis < d_; ++axis) {
      hash = (hash ^ std::bit_cast<uint64_t>(y_[axis][p] + 0.0)) * 0x9E3779B97F4A7C15u;  // -0 is 0
      hash ^= hash >> 32;
    }
    const auto differs = [&](int64_t q) {
      for (int axis = 0; axis < d_; ++axis)
        if (y_[axis][p] != y_[axis][q]) return true;
      return false;
    };
    size_t at = hash & (size - 1);
    while (table[at] >= 0 && differs(table[at])) at = (at + 1) & (size - 1);
    if (table[at] < 0)
      table[at] = p;
    else
      duplicates_.push_back({table[at], p});
  }
  std::sort(duplicates_.begin(), duplicates_.end());
}

void SiteTree::hide_duplicates(const double* h) {
  const auto beats = [&](int64_t p, int64_t q) {
    const int64_t a = number_[p], b = number_[q];
    return h[a] > h[b] || (h[a] == h[b] && a < b);
  };
  for (size_t i = 0; i < duplicates_.size();) {
    const int64_t first = duplicates_[i].first;
    int64_t best = first;
    for (; i < duplicates_.size() && duplicates_[i].first == first; ++i) {
      int64_t other = duplicates_[i].second;
      if (beats(other, best)) std::swap(other, best);
      h_[other] = kHidden;
    }
  }
}

int64_t SiteTree::bound(int64_t node, int64_t side) const {
  const int level = std::bit_width(uint64_t(node)) - 1;
  const int64_t first = int64_t{1} << level, k = node - first + side;
  return (m_ >> level) * k + (((m_ & (first - 1)) * k) >> level);  // m k / first, without leaving 64 bits
}

// Sorts a node's targets for its children, or, in a leaf, takes over their coordinates.
void SiteTree::build(int64_t node, const double* y) {
  const int64_t first = begin(node), last = end(node);
  for (int axis = 0; axis < d_; ++axis) {
    double &low = low_[axis][node], &high = high_[axis][node];
    low = std::numeric_limits<double>::infinity(), high = -low;
    for (int64_t p = first; p < last; ++p) {
      const double value = y[number_[p] * d_ + axis];
      low = std::min(low, value), high = std::max(high, value);
    }
  }
  if (node < leaves_) {
    int widest = 0;
    for (int axis = 1; axis < d_; ++axis)
      if (high_[axis][node] - low_[axis][node] > high_[widest][node] - low_[widest][node]) widest = axis;
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
  if (m_ < kAlone) threads = 1;
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
  hide_duplicates(h);
  int64_t level = leaves_;
  while (level >= kWidth) level /= kWidth;
  for (int64_t above = 1; level <= leaves_; above = level, level *= kWidth)
    parallel_for(level, {threads, {}}, [&](int64_t k, int) { fit(level + k, above + k * above / level); });
}

// A node's c and top, once those of its parent in the search are known.
void SiteTree::fit(int64_t node, int64_t parent) {
  const Moments& s = moments_[node];
  double trace = 0, a[3][3], b[3], c[3] = {};
  for (int i = 0; i < d_; ++i) trace += s.yy[i][i];
  for (int i = 0; i < d_; ++i) {
    if (node > parent) c[i] = c_[i][parent];
    for (int j = 0; j < d_; ++j) a[i][j] = s.yy[i][j] + (i == j ? kPull * trace : 0.0);
    b[i] = -s.yh[i] + kPull * trace * c[i];
  }
  solve(a, b, d_, c);
  double top = -std::numeric_limits<double>::infinity(), slack = 0;
  for (int64_t p = begin(node); p < end(node); ++p) {
    if (h_[p] == kHidden) continue;
    double value = h_[p], terms = std::abs(value);
    for (int i = 0; i < d_; ++i) value += c[i] * y_[i][p], terms += std::abs(c[i]) * largest_[i];
    top = std::max(top, value), slack = std::max(slack, terms);
  }
  for (int i = 0; i < d_; ++i) c_[i][node] = c[i], slack += 2 * std::abs(c[i]) * largest_[i];
  top_[node] = top + kRounding * slack;
}

}  // namespace otgen
