// The targets of a search: centred, scaled, ordered, rounded and packed, with the bounds of what that cost.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "bounds.h"
#include "isa/isa.h"
#include "prune.h"
#include "search.h"
#include "threads.h"

namespace otgen {
namespace {

constexpr float kLeastReach = 1e-28f;          // of samples, so that the inverse of their step is finite
constexpr double kWordRange = 0x1p24;          // heights of a group, in units, differ by no more
constexpr int32_t kNoTarget = -3 * (1 << 29);  // less than any sum of products and heights
constexpr float kHugeNorm = 1e30f;             // beyond it the filter could overflow: score everything
constexpr double kHugeScore = 0x1p1000;        // likewise where a float64 score could
constexpr int64_t kPackNumbers = 1 << 16;      // numbers that a thread packs at a time, about

// A block holds this many tiles at most, enough to read a chunk of targets from L2 many times, and no more numbers,
// each of which takes 8 to 24 bytes in a thread.
constexpr int64_t kMaxTiles = 32, kMaxNumbers = 1 << 22;

int exponent_above(double v) {
  int e = 0;
  std::frexp(v, &e);
  return e;
}

double square(double v) { return v * v; }

// Targets that a thread packs at a time: as many as are worth one, but sums by block should be few.
int64_t pack_rows(int64_t d) { return std::max<int64_t>(64, kPackNumbers / d); }

// Whether targets are ruled out for boxes of samples; then there is no filter.
bool pruned(int64_t m, int64_t d, int64_t k) {
  return m >= kPrunedTargets && k <= kPrunedBest && d <= (k <= 2 ? kPrunedDim : kPrunedDimOfMany);
}

// Rows of tiles, (steps, group, row), past the last target repeat it: the maximum must be that of a target.
template <class V>
void repeat_last(V* tiles, int64_t steps, int64_t group, int64_t row, int64_t count) {
  for (int64_t s = 0; s < steps; ++s)
    for (int64_t t = count; t < group; ++t)
      std::copy_n(tiles + (s * group + count - 1) * row, row, tiles + (s * group + t) * row);
}

}  // namespace

template <class T>
Search<T>::Search(const T* y, const T* h, int64_t m, int64_t d, int64_t k, int threads, Region region)
    : y_(y),
      h_(h),
      k_(k),
      isa_(isa_for(d, k, region.images > 1, pruned(m, d, k))),
      region_(std::move(region)),
      prepares_(isa_.prepare != nullptr || (region_.images > 1 && !pruned(m, d, k))),
      middle_(region_.middle),
      step_(std::max(whole_of(isa_.packing) == Whole::kBytes ? region_.reach : region_.norm, kLeastReach) /
            float(most_of(whole_of(isa_.packing)))),
      order_(static_cast<size_t>(m)) {
  const KeepDenormals guard;
  panels_.m = m, panels_.d = d, panels_.groups = ceil_div(m, isa_.group);
  Frame where = frame(threads);
  lift(where, threads);
  // The best heights at the middle of the samples become 0, for rounding errors grow with the heights of a group, and
  // those of the groups that win should be small.
  const double top = *std::max_element(lifted_.begin(), lifted_.end()) / where.scale;
  if (std::isfinite(where.h_centre + top)) where.h_centre += top;
  if (!prepares_) middle_.assign(static_cast<size_t>(d), 0.0f);  // samples are read as they are
  for (const float c : middle_) middle_norm_ += square(double(c));
  middle_norm_ = std::sqrt(middle_norm_);
  lift(where, threads);
  std::iota(order_.begin(), order_.end(), int64_t{0});
  if (!pruned(m, d, k))
    std::stable_sort(order_.begin(), order_.end(), [&](int64_t a, int64_t b) { return lifted_[a] > lifted_[b]; });
  pack(where, threads);
  if (pruned(m, d, k)) pruner_ = std::make_shared<Pruner>(panels_, order_, isa_, k, huge_norm_);
}

template <class T>
int Search<T>::tiles_per_block(int64_t n, int threads) const {
  const bool large = pruner_ != nullptr;  // few large blocks, whose boxes are small
  const int64_t most = large ? kPrunedTiles : std::clamp<int64_t>(kMaxNumbers / (panels_.d * kTile), 1, kMaxTiles);
  return int(std::clamp<int64_t>(ceil_div(n, int64_t(kTile) * threads * (large ? 1 : 4)), 1, most));
}

template <class T>
void Search<T>::lift(const Frame& frame, int threads) {
  const int64_t m = panels_.m, rows = pack_rows(panels_.d);
  lifted_.resize(static_cast<size_t>(m));
  parallel_for(ceil_div(m, rows), {threads, {}}, [&](int64_t b, int) {
    for (int64_t j = b * rows; j < std::min(m, (b + 1) * rows); ++j) lifted_[j] = lifted(j, frame);
  });
}

// h'' 2^-a of a target, within (d + 3) 2^-53 (|h'| + |c||y'|).
template <class T>
double Search<T>::lifted(int64_t j, const Frame& frame) const {
  const int64_t d = panels_.d;
  const auto term = [&](int64_t c) {
    return double(middle_[c]) * ((double(y_[j * d + c]) - frame.centre[c]) * frame.scale);
  };
  double even = (double(h_[j]) - frame.h_centre) * frame.scale, odd = 0;  // two sums hide the latency of one
  for (int64_t c = 0; c + 1 < d; c += 2) even += term(c), odd += term(c + 1);
  return even + odd + (d % 2 == 1 ? term(d - 1) : 0.0);
}

template <class T>
typename Search<T>::Frame Search<T>::frame(int threads) const {
  const int64_t m = panels_.m, d = panels_.d, size = pack_rows(d), blocks = ceil_div(m, size);
  const auto rows = [&](int64_t b, const auto& f) {
    for (int64_t j = b * size; j < std::min(m, (b + 1) * size); ++j) f(j);
  };
  // Sums by block, added in the order of the blocks: the same numbers for any number of threads.
  std::vector<double> sums(size_t(blocks * d), 0.0), largest(size_t(blocks * d), 0.0);
  parallel_for(blocks, {threads, {}}, [&](int64_t b, int) {
    rows(b, [&](int64_t j) {
      for (int64_t c = 0; c < d; ++c) sums[b * d + c] += double(y_[j * d + c]) * 0x1p-40;  // far from overflow
    });
  });
  Frame frame{std::vector<double>(static_cast<size_t>(d), 0.0), 0.0, 1.0};
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t c = 0; c < d; ++c) frame.centre[c] += sums[b * d + c] / double(m) * 0x1p40;
  const auto [lowest, highest] = std::minmax_element(h_, h_ + m);
  const double h_max = double(*highest), h_min = double(*lowest);
  frame.h_centre = 0.5 * h_min + 0.5 * h_max;
  parallel_for(blocks, {threads, {}}, [&](int64_t b, int) {
    rows(b, [&](int64_t j) {
      for (int64_t c = 0; c < d; ++c)
        largest[b * d + c] = std::max(largest[b * d + c], std::abs(double(y_[j * d + c]) - frame.centre[c]));
    });
  });
  const double extent = std::max({*std::max_element(largest.begin(), largest.end()), std::abs(h_max - frame.h_centre),
                                  std::abs(h_min - frame.h_centre)});
  // 2^-a brings the largest number below 1. The exponent is kept where ldexp(1, -a) is finite and normal.
  if (extent > 0) frame.scale = std::ldexp(1.0, -std::clamp(exponent_above(extent), -1000, 1000));
  return frame;
}

template <class T>
void Search<T>::pack(const Frame& frame, int threads) {
  const int64_t d = panels_.d, groups = panels_.groups, group = isa_.group;
  const size_t even = size_t(ceil_div(groups, 2)) * 2;
  packed_y_.assign(size_t(groups) * d * group + kMaxGroup, 0.0f);
  packed_h_.assign(size_t(groups) * group + kMaxGroup, -kInf);
  if (prepares_ && isa_.packing == Packing::kFloat32) packed_lifted_.assign(size_t(groups) * group, -kInf);
  bounds_.assign(size_t(groups) * 7 + kMaxGroup, 0.0f);
  originals_.assign(static_cast<size_t>(groups), 0.0);
  if (is_whole(isa_.packing)) {
    words_.assign(even * words_of(isa_.packing, d) * group, 0);
    if (!on_tiles(isa_.packing)) word_h_.assign(size_t(groups) * group, kNoTarget);
  }
  if (isa_.packing == Packing::kBfloat16) tiles_.assign(even * ceil_div(d, kDepth) * group * kDepth, 0);
  if (isa_.packing != Packing::kFloat32) tops_.assign(even, -kInf), units_.assign(even, 0.0f);
  const int64_t rows = ceil_div(pack_rows(d), group), blocks = ceil_div(groups, rows);
  parallel_for(blocks, {threads, {}}, [&](int64_t b, int) {
    std::vector<double> raw(size_t(d) * kMaxGroup);
    for (int64_t g = b * rows; g < std::min(groups, (b + 1) * rows); ++g) pack_group(g, frame, raw.data());
  });
  const double y_largest = *std::max_element(originals_.begin(), originals_.end());
  const double h_largest =
      std::abs(double(*std::max_element(h_, h_ + panels_.m, [](T a, T b) { return std::abs(a) < std::abs(b); })));
  huge_norm_ = h_largest < kHugeScore ? float(std::min(double(kHugeNorm), kHugeScore * frame.scale / y_largest)) : 0.0f;
  float* bounds = bounds_.data();
  for (int64_t g = 0; g < groups; ++g)
    if (originals_[g] > 0)
      whole_share_ = std::max(whole_share_, double(2 * d + 4) * kUnit64 * originals_[g] / double(bounds[groups + g]));
  const int64_t spans = ceil_div(groups, kSpan);
  spans_.assign(size_t(spans) * 4, 0.0f);
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t g = 0; g < groups; ++g) {
      float& largest = spans_[i * spans + g / kSpan];
      largest = std::max(largest, bounds[i * groups + g]);
    }
  panels_.y = packed_y_.data(), panels_.h = packed_h_.data(), panels_.lifted = packed_lifted_.data();
  panels_.tiles = tiles_.data(), panels_.top = tops_.data();
  panels_.words = words_.data(), panels_.word_h = word_h_.data(), panels_.unit = units_.data();
  panels_.filter = {bounds, bounds + groups, bounds + 2 * groups, bounds + 3 * groups};
  panels_.span = {spans_.data(), spans_.data() + spans, spans_.data() + 2 * spans, spans_.data() + 3 * spans};
  panels_.single = {bounds + 4 * groups, bounds + 5 * groups, bounds + 6 * groups, bounds + 6 * groups};
}

// Packs one group and its bounds; raw is room for (d, kMaxGroup).
template <class T>
void Search<T>::pack_group(int64_t g, const Frame& frame, double* raw) {
  const int64_t m = panels_.m, d = panels_.d, groups = panels_.groups, group = isa_.group;
  const double scale = frame.scale;
  const int count = int(std::min(group, m - g * group));
  const T* rows[kMaxGroup];
  double h_abs = 0, h_residual = 0, h_original = 0, lifted_abs = 0, lifted_residual = 0;
  for (int t = 0; t < count; ++t) {
    const int64_t j = order_[g * group + t];
    rows[t] = y_ + j * d;
    const double centred = (double(h_[j]) - frame.h_centre) * scale;
    const float rounded = float(centred);
    packed_h_[g * group + t] = rounded;
    if (!packed_lifted_.empty()) packed_lifted_[g * group + t] = float(lifted_[j]);
    lifted_residual = std::max(lifted_residual, std::abs(lifted_[j] - double(float(lifted_[j]))));
    h_abs = std::max(h_abs, std::abs(double(rounded)));
    h_residual = std::max(h_residual, std::abs(centred - double(rounded)) + 2 * kUnit64 * std::abs(centred));
    h_original = std::max(h_original, std::abs(double(h_[j])) * scale);
    lifted_abs = std::max(lifted_abs, std::abs(lifted_[j]));
  }
  for (int64_t c = 0; c < d; ++c)
    for (int t = 0; t < count; ++t) raw[c * kMaxGroup + t] = double(rows[t][c]);
  PackedNorms norms;
  float* y = &packed_y_[g * d * group];
  uint16_t* tiles = isa_.packing == Packing::kBfloat16 ? &tiles_[g * ceil_div(d, kDepth) * group * kDepth] : nullptr;
  isa_.pack(raw, frame.centre.data(), scale, d, y, tiles, norms);
  for (int64_t c = 0; c < d && count < group; ++c) std::fill(y + c * group + count, y + (c + 1) * group, 0.0f);
  const Coarse coarse = on_tiles(isa_.packing)   ? pack_tiles(g, frame, raw, count, norms)
                        : is_whole(isa_.packing) ? pack_words(g, frame, raw, count, norms)
                                                 : Coarse{lifted_residual, 0.0};
  const auto largest_of = [&](const double* squares) { return std::sqrt(*std::max_element(squares, squares + count)); };
  const double y_norm = largest_of(norms.y), y_residual = largest_of(norms.residual);
  const double y_original = largest_of(norms.original);
  const double chain = double(2 * d + 8) * kUnit32;  // 4 more: maximum +- E
  const double exact = double(2 * d + 4) * kUnit64;
  const double largest = y_norm + y_residual;  // >= |y'|
  const double underflow =
      kTiny32 * (2.0 * double(d) + 4 + std::sqrt(double(d)) * largest) + double(d) * kTiny64 * scale;
  originals_[g] = y_original;
  float* bound =
      bounds_.data() + g;  // alpha, beta, gamma and spread of the filter, then alpha and beta of single scores
  const float alpha = up(chain * h_abs + h_residual + exact * h_original + underflow);
  // 2 u |y'| covers the rounding of double samples to float32.
  const float beta = up((chain + 2 * kUnit32) * largest + y_residual + exact * y_original);
  bound[4 * groups] = alpha, bound[5 * groups] = beta;
  if (!prepares_) {
    bound[0] = alpha, bound[groups] = beta;
    return;
  }
  const bool floats = isa_.packing == Packing::kFloat32;
  const double filtered = floats ? y_norm : largest_of(norms.coarse);
  const double filtered_residual = floats ? y_residual : largest_of(norms.coarse_residual);
  const double lifting = double(d + 4) * kUnit64 * (h_abs + lifted_abs + middle_norm_ * largest);
  bound[0] = up(chain * lifted_abs + coarse.height + lifting + exact * h_original + underflow);
  bound[groups] = up((chain + 2 * kUnit32) * (filtered + largest) + filtered_residual + exact * y_original);
  bound[2 * groups] = up(largest);
  bound[3 * groups] = up(coarse.spread);
}

// What the matrix unit reads beside the targets of a group.
template <class T>
typename Search<T>::Coarse Search<T>::pack_tiles(int64_t g, const Frame& frame, const double* raw, int count,
                                                 PackedNorms& norms) {
  const int64_t d = panels_.d, group = isa_.group;
  if (isa_.packing == Packing::kByteTiles) {
    const int64_t words = words_of(isa_.packing, d);
    int32_t sums[kMaxGroup];
    units_[g] = isa_.pack_whole(raw, frame.centre.data(), frame.scale, d, count, double(step_), kTiny32,
                                &words_[g * words * group], sums, norms);
    repeat_last(&words_[g * words * group], words / kTileWords, group, kTileWords, count);
  } else {
    const int64_t steps = ceil_div(d, kDepth);
    repeat_last(&tiles_[g * steps * group * kDepth], steps, group, kDepth, count);
  }
  const double first = lifted_[order_[g * group]], last = lifted_[order_[g * group + count - 1]];
  const double rounding = kUnit32 * std::max(std::abs(first), std::abs(last));
  tops_[g] = float(first);
  return {rounding, first - last + 2 * rounding};
}

// A group in whole numbers, and the heights that its sums of products start at.
template <class T>
typename Search<T>::Coarse Search<T>::pack_words(int64_t g, const Frame& frame, const double* raw, int count,
                                                 PackedNorms& norms) {
  const int64_t d = panels_.d, group = isa_.group;
  const float top = float(lifted_[order_[g * group]]);
  // Heights lie between these two; the first need not be top itself, which is rounded.
  const double above = lifted_[order_[g * group]] - double(top),
               under = lifted_[order_[g * group + count - 1]] - double(top);
  const double range = std::max(std::abs(above), std::abs(under));
  int32_t sums[kMaxGroup];
  const double least = std::max(range / kWordRange, kTiny32);
  const Whole whole = whole_of(isa_.packing);
  const float unit = isa_.pack_whole(raw, frame.centre.data(), frame.scale, d, count, double(step_), least,
                                     &words_[g * words_of(isa_.packing, d) * group], sums, norms);
  double residual = 0;
  for (int t = 0; t < count; ++t) {
    const double height = lifted_[order_[g * group + t]] - double(top), units = std::rint(height / double(unit));
    word_h_[g * group + t] = int32_t(units) - zero_of(whole) * sums[t];
    residual = std::max(residual, std::abs(height - units * double(unit)));
  }
  tops_[g] = top, units_[g] = unit;
  return {residual + kUnit32 * range, 0.0};
}

template class Search<float>;
template class Search<double>;

}  // namespace otgen
