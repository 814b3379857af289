#include "prune.h"

#include <algorithm>
#include <cmath>

#include "bounds.h"
#include "isa/isa.h"

namespace otgen {
namespace {

constexpr int kDigit = 12;            // bits that a pass of the sort looks at
constexpr int kKeyBits = 2 * kDigit;  // of a point
constexpr int kParts = 4;             // of a run of tiles
constexpr int64_t kShort = 24;        // targets that are scored rather than narrowed, or 4 k
constexpr int64_t kWhole = 16;        // lengths of lists are multiples: the longest vector
constexpr float kFar = 1e30f;         // beyond it differences could overflow

Box around(const Box& a, const Box& b, int64_t d) {
  Box both = a;
  for (int64_t k = 0; k < d; ++k) {
    both.low[k] = std::min(a.low[k], b.low[k]);
    both.high[k] = std::max(a.high[k], b.high[k]);
  }
  return both;
}

// Centre and half widths, rounded up; not a number where an end is infinite.
void middle(const Box& box, int64_t d, float* centre, float* half) {
  for (int64_t k = 0; k < d; ++k) {
    centre[k] = 0.5f * box.low[k] + 0.5f * box.high[k];
    half[k] = up(std::max(box.high[k] - centre[k], centre[k] - box.low[k]));
  }
}

}  // namespace

void TargetList::resize(int64_t size, int64_t d) {
  count = size, stride = ceil_div(size, kWhole) * kWhole;
  if (int64_t(h.size()) < stride) h.resize(size_t(stride)), number.resize(size_t(stride));
  if (int64_t(y.size()) < d * stride) y.resize(size_t(d * stride));
  std::fill(h.begin() + count, h.begin() + stride, -kInf);
  for (int64_t k = 0; k < d; ++k) std::fill(y.begin() + k * stride + count, y.begin() + (k + 1) * stride, 0.0f);
}

Curve::Curve(int64_t d) : d_(d), bits_(int(std::min<int64_t>(kDigit, kKeyBits / d))), spread_(size_t(1) << bits_, 0) {
  for (size_t v = 0; v < spread_.size(); ++v)
    for (int b = 0; b < bits_; ++b) spread_[v] |= uint32_t(v >> b & 1) << (b * d);
}

template <class X>
const std::vector<int32_t>& Curve::sort(int64_t count, const X& x) {
  const size_t size = static_cast<size_t>(count);
  keys_.assign(size, 0), other_keys_.resize(size), order_.resize(size), other_order_.resize(size);
  for (int64_t k = 0; k < d_; ++k) {
    float low = kInf, high = -kInf;
    for (int64_t i = 0; i < count; ++i)
      if (const float v = x(i, k); std::abs(v) < kFar) low = std::min(low, v), high = std::max(high, v);
    const float last = float(spread_.size() - 1), scale = high > low ? last / (high - low) : 0.0f;
    for (int64_t i = 0; i < count; ++i) {
      const float step = (x(i, k) - low) * scale;  // any number is right
      keys_[i] |= spread_[step > 0 ? (step < last ? size_t(step) : size_t(last)) : 0] << k;
    }
  }
  for (int64_t i = 0; i < count; ++i) order_[i] = int32_t(i);
  for (int shift = 0; shift < kKeyBits; shift += kDigit) {
    std::vector<int32_t> place((1 << kDigit) + 1, 0);
    const auto digit = [&](uint32_t key) { return key >> shift & ((1u << kDigit) - 1); };
    for (const uint32_t key : keys_) ++place[digit(key) + 1];
    for (int i = 0; i < 1 << kDigit; ++i) place[i + 1] += place[i];
    for (size_t i = 0; i < size; ++i) {
      const int32_t to = place[digit(keys_[i])]++;
      other_keys_[to] = keys_[i], other_order_[to] = order_[i];
    }
    keys_.swap(other_keys_), order_.swap(other_order_);
  }
  return order_;
}

Pruner::Pruner(const Panels& panels, const std::vector<int64_t>& order, const Isa& which, int64_t best, float huge_norm)
    : d(panels.d), k(best), isa(which), far(huge_norm / float(panels.d)) {
  const int64_t m = panels.m, group = isa.group;
  for (int64_t g = 0; g < panels.groups; ++g) {
    alpha = std::max(alpha, double(panels.single.alpha[g]));
    beta = std::max(beta, double(panels.single.beta[g]));
  }
  const auto y = [&](int64_t j, int64_t c) { return panels.y[(j / group * d + c) * group + j % group]; };
  Curve curve(d);
  const std::vector<int32_t>& places = curve.sort(m, y);
  all.resize(m, d);
  for (int64_t i = 0; i < m; ++i) {
    const int64_t j = places[i];
    for (int64_t c = 0; c < d; ++c) all.y[c * all.stride + i] = y(j, c);
    all.h[i] = panels.h[j], all.number[i] = int32_t(order[j]);
  }
}

// E(|c| + |r|) for a box.
float Pruner::error(const Box& box) const {
  float centre[kPrunedDim], half[kPrunedDim];
  middle(box, d, centre, half);
  double c2 = 0, r2 = 0, lost = std::sqrt(double(d)) * 0x1p-126;  // what is less became zero in float32
  for (int64_t k = 0; k < d; ++k) c2 += double(centre[k]) * centre[k], r2 += double(half[k]) * half[k];
  return up(alpha + beta * (std::sqrt(c2) + std::sqrt(r2) + lost));
}

Pruning::Pruning(const Pruner& pruner) : pruner_(pruner), curve_(pruner.d) {
  const size_t m = size_t(pruner.all.stride);
  kept_.resize(m), scores_.resize(m);
}

void Pruning::run(const float* x, int tiles, const Found& found) {
  const int64_t d = pruner_.d;
  found_ = &found;
  order_ = &curve_.sort(int64_t(tiles) * kTile,
                        [&](int64_t i, int64_t k) { return x[(i / kTile * d + k) * kTile + i % kTile]; });
  place(x, tiles);
  descend(pruner_.all, 0, tiles, 0);
}

// Copies the samples to their places on the curve, and sees how far their tiles reach.
void Pruning::place(const float* x, int tiles) {
  const int64_t d = pruner_.d;
  sorted_.resize(size_t(tiles) * d * kTile), boxes_.resize(static_cast<size_t>(tiles));
  for (int tile = 0; tile < tiles; ++tile)
    for (int64_t k = 0; k < d; ++k) {
      float* row = &sorted_[(tile * d + k) * kTile];
      float low = kInf, high = -kInf;
      bool finite = true;
      for (int l = 0; l < kTile; ++l) {
        const int64_t i = (*order_)[tile * kTile + l];
        const float v = row[l] = x[(i / kTile * d + k) * kTile + i % kTile];
        finite &= std::abs(v) < pruner_.far;
        low = v < low ? v : low, high = high < v ? v : high;
      }
      boxes_[tile].low[k] = finite ? low : -kInf, boxes_[tile].high[k] = finite ? high : kInf;
    }
}

void Pruning::descend(const TargetList& list, int first, int last, size_t depth) {
  if (last - first == 1) return score(list, first);
  const int part = int(ceil_div(last - first, kParts));
  for (int a = first; a < last; a += part) {
    const int b = std::min(a + part, last);
    Box box = boxes_[a];
    for (int tile = a + 1; tile < b; ++tile) box = around(box, boxes_[tile], pruner_.d);
    descend(list.count > std::max(kShort, 4 * pruner_.k) ? narrow(list, box, depth) : list, a, b, depth + 1);
  }
}

// Those of a list that can be among the k best of a sample in the box.
const TargetList& Pruning::narrow(const TargetList& list, const Box& box, size_t depth) {
  const int64_t d = pruner_.d;
  float centre[kPrunedDim], half[kPrunedDim];
  middle(box, d, centre, half);
  const int64_t count =
      pruner_.isa.survivors(list.y.data(), list.h.data(), list.stride, d, centre, half,
                            (pruner_.k > 2 ? 16 : 8) * pruner_.error(box), pruner_.k, scores_.data(), kept_.data());
  if (lists_.size() <= depth) lists_.push_back(std::make_unique<TargetList>());
  TargetList& left = *lists_[depth];
  left.resize(count, d);
  for (int64_t i = 0; i < count; ++i) left.h[i] = list.h[kept_[i]], left.number[i] = list.number[kept_[i]];
  for (int64_t k = 0; k < d; ++k)
    for (int64_t i = 0; i < count; ++i) left.y[k * left.stride + i] = list.y[k * list.stride + kept_[i]];
  return left;
}

void Pruning::score(const TargetList& list, int tile) {
  const int64_t d = pruner_.d;
  scores_.resize(std::max(scores_.size(), size_t(list.count) * kTile)), masks_.resize(size_t(list.count));
  pruner_.isa.best_of(&sorted_[size_t(tile) * d * kTile], list.y.data(), list.h.data(), list.stride, list.count, d,
                      2 * pruner_.error(boxes_[tile]), pruner_.k, scores_.data(), masks_.data());
  candidates_.clear();
  for (int64_t i = 0; i < list.count; ++i)
    for (uint32_t mask = masks_[i]; mask != 0; mask &= mask - 1)
      candidates_.push_back({(*order_)[tile * kTile + __builtin_ctz(mask)], list.number[i]});
  (*found_)(candidates_);
}

}  // namespace otgen
