#include "search.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "../score.h"
#include "isa/isa.h"
#include "prune.h"
#include "threads.h"

namespace otgen {
namespace {

constexpr double kUnit32 = 0x1p-24, kUnit64 = 0x1p-53;  // half a unit in the last place of 1
constexpr double kTiny32 = 0x1p-126;                    // the smallest normal float32
constexpr double kTiny64 = 0x1p-1074;                   // the smallest denormal float64
constexpr double kRoundUp = 1 + 0x1p-20;                // covers the few roundings made while a bound is evaluated
constexpr float kLeastReach = 1e-28f;                   // of samples, so that the inverse of their step is finite
constexpr double kWordRange = 0x1p24;                   // heights of a group, in units, differ by no more
constexpr int32_t kNoTarget = -(1 << 30);               // less than any sum of products and heights; twice as much fits
constexpr float kHugeNorm = 1e30f;                      // beyond it the filter could overflow: score everything
constexpr double kHugeScore = 0x1p1000;                 // likewise where a float64 score could
constexpr int64_t kChunkBytes = 1 << 18;                // targets read again and again by a block: an eighth of L2
constexpr int64_t kPackRows = 1 << 10;                  // targets that a thread packs at a time
constexpr float kInf = std::numeric_limits<float>::infinity();

int exponent_above(double v) {
  int e = 0;
  std::frexp(v, &e);
  return e;
}

double square(double v) { return v * v; }

// Whether targets are ruled out for boxes of samples; then there is no filter.
bool pruned(int64_t m, int64_t d, int64_t k) { return k <= 2 && d <= kPrunedDim && m >= kPrunedTargets; }

// Rows of tiles, (steps, group, row), past the last target repeat it: the maximum must be that of a target.
template <class V>
void repeat_last(V* tiles, int64_t steps, int64_t group, int64_t row, int64_t count) {
  for (int64_t s = 0; s < steps; ++s)
    for (int64_t t = count; t < group; ++t)
      std::copy_n(tiles + (s * group + count - 1) * row, row, tiles + (s * group + t) * row);
}

// To float32, not below the exact value even after the few roundings made while the bound is used.
float up(double v) { return float(v * kRoundUp); }

}  // namespace

template <class T>
Search<T>::Search(const T* y, const T* h, int64_t m, int64_t d, int64_t k, int threads, Region region)
    : y_(y),
      h_(h),
      k_(k),
      isa_(isa_for(d, k, region.mirrored, pruned(m, d, k))),
      region_(std::move(region)),
      middle_(region_.middle),
      step_(std::max(region_.reach, kLeastReach) / float(most_of(whole_of(isa_.packing), d))),
      order_(static_cast<size_t>(m)) {
  const KeepDenormals guard;
  panels_.m = m, panels_.d = d, panels_.groups = ceil_div(m, isa_.group);
  Frame where = frame(threads);
  lift(where, threads);
  // The best heights at the middle of the samples become 0, for rounding errors grow with the heights of a group, and
  // those of the groups that win should be small.
  const double top = *std::max_element(lifted_.begin(), lifted_.end()) / where.scale;
  if (std::isfinite(where.h_centre + top)) where.h_centre += top;
  if (isa_.prepare == nullptr) middle_.assign(static_cast<size_t>(d), 0.0f);  // samples are read as they are
  lift(where, threads);
  std::iota(order_.begin(), order_.end(), int64_t{0});
  if (!pruned(m, d, k))
    std::stable_sort(order_.begin(), order_.end(), [&](int64_t a, int64_t b) { return lifted_[a] > lifted_[b]; });
  pack(where, threads);
  if (pruned(m, d, k)) pruner_ = std::make_shared<Pruner>(panels_, order_, isa_, k, huge_norm_);
}

template <class T>
int Search<T>::tiles_per_block(int64_t n, int threads) const {
  return pruner_ == nullptr ? otgen::tiles_per_block(n, threads) : otgen::tiles_per_block(n, threads, 1, kPrunedTiles);
}

template <class T>
void Search<T>::lift(const Frame& frame, int threads) {
  const int64_t m = panels_.m;
  lifted_.resize(static_cast<size_t>(m));
  parallel_for(ceil_div(m, kPackRows), {threads, {}}, [&](int64_t b, int) {
    for (int64_t j = b * kPackRows; j < std::min(m, (b + 1) * kPackRows); ++j) lifted_[j] = lifted(j, frame, middle_);
  });
}

// h'' 2^-a of a target, within (d + 3) 2^-53 (|h'| + |c||y'|).
template <class T>
double Search<T>::lifted(int64_t j, const Frame& frame, const std::vector<float>& middle) const {
  const int64_t d = panels_.d;
  const auto term = [&](int64_t c) {
    return double(middle[c]) * ((double(y_[j * d + c]) - frame.centre[c]) * frame.scale);
  };
  double even = (double(h_[j]) - frame.h_centre) * frame.scale, odd = 0;  // two sums hide the latency of one
  for (int64_t c = 0; c + 1 < d; c += 2) even += term(c), odd += term(c + 1);
  return even + odd + (d % 2 == 1 ? term(d - 1) : 0.0);
}

template <class T>
typename Search<T>::Frame Search<T>::frame(int threads) const {
  const int64_t m = panels_.m, d = panels_.d, blocks = ceil_div(m, kPackRows);
  const auto rows = [&](int64_t b, const auto& f) {
    for (int64_t j = b * kPackRows; j < std::min(m, (b + 1) * kPackRows); ++j) f(j);
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
  const double size = std::max({*std::max_element(largest.begin(), largest.end()), std::abs(h_max - frame.h_centre),
                                std::abs(h_min - frame.h_centre)});
  // 2^-a brings the largest number below 1. The exponent is kept where ldexp(1, -a) is finite and normal.
  if (size > 0) frame.scale = std::ldexp(1.0, -std::clamp(exponent_above(size), -1000, 1000));
  return frame;
}

template <class T>
void Search<T>::pack(const Frame& frame, int threads) {
  const int64_t d = panels_.d, groups = panels_.groups, group = isa_.group;
  const size_t even = size_t(ceil_div(groups, 2)) * 2;
  packed_y_.assign(size_t(groups) * d * group + kMaxGroup, 0.0f);
  packed_h_.assign(size_t(groups) * group + kMaxGroup, -kInf);
  if (region_.mirrored && isa_.packing == Packing::kFloat32 && !pruned(panels_.m, d, k_))
    packed_both_.assign(size_t(groups) * group, -kInf);
  bounds_.assign(size_t(groups) * 7 + kMaxGroup, 0.0f);
  originals_.assign(static_cast<size_t>(groups), 0.0);
  if (is_whole(isa_.packing)) {
    words_.assign(even * words_of(isa_.packing, d) * group, 0);
    if (!on_tiles(isa_.packing)) {
      word_h_.assign(size_t(groups) * group, kNoTarget);
      if (region_.mirrored) word_both_.assign(size_t(groups) * group, 2 * kNoTarget);
    }
  }
  if (isa_.packing == Packing::kBfloat16) tiles_.assign(even * ceil_div(d, kDepth) * group * kDepth, 0);
  if (isa_.packing != Packing::kFloat32) tops_.assign(even, -kInf), units_.assign(even, 0.0f);
  const int64_t rows = std::max<int64_t>(1, kPackRows / group), blocks = ceil_div(groups, rows);
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
  panels_.y = packed_y_.data(), panels_.h = packed_h_.data(), panels_.both = packed_both_.data();
  panels_.tiles = tiles_.data(), panels_.top = tops_.data();
  panels_.words = words_.data(), panels_.word_h = word_h_.data(), panels_.word_both = word_both_.data();
  panels_.unit = units_.data();
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
  double h_abs = 0, h_residual = 0, h_original = 0, lifted_abs = 0, middle_norm = 0;
  for (const float c : middle_) middle_norm += square(double(c));
  middle_norm = std::sqrt(middle_norm);
  for (int t = 0; t < count; ++t) {
    const int64_t j = order_[g * group + t];
    rows[t] = y_ + j * d;
    const double centred = (double(h_[j]) - frame.h_centre) * scale;
    const float rounded = float(centred);
    packed_h_[g * group + t] = rounded;
    if (!packed_both_.empty()) packed_both_[g * group + t] = float(2 * lifted(j, frame, region_.middle));
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
                                                 : Coarse{};
  const auto largest_of = [&](const double* squares) { return std::sqrt(*std::max_element(squares, squares + count)); };
  const double y_norm = largest_of(norms.y), y_residual = largest_of(norms.residual);
  const double y_original = largest_of(norms.original);
  const double chain = double(2 * d + 14) * kUnit32;  // 4 more: maximum +- E, 6 for the image
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
  if (isa_.packing == Packing::kFloat32) {
    bound[0] = alpha, bound[groups] = beta;
    return;
  }
  const double lifting = double(d + 4) * kUnit64 * (h_abs + lifted_abs + middle_norm * largest);
  bound[0] = up(chain * lifted_abs + coarse.height + lifting + exact * h_original + underflow);
  bound[groups] = up((chain + 2 * kUnit32) * (largest_of(norms.coarse) + largest) + largest_of(norms.coarse_residual) +
                     exact * y_original);
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
    if (region_.mirrored) word_both_[g * group + t] = 2 * int32_t(units);
    residual = std::max(residual, std::abs(height - units * double(unit)));
  }
  tops_[g] = top, units_[g] = unit;
  return {residual + kUnit32 * range, 0.0};
}

template <class T>
template <class X>
Search<T>::Block<X>::Block(const Search& search, int tiles)
    : search_(search), exact_(new X[size_t(tiles) * search.d() * kTile]()) {
  const size_t samples = size_t(tiles) * kTile, k = size_t(search.k());
  if constexpr (!std::is_same_v<X, float>) rounded_.resize(size_t(search.d()) * samples);
  best_index_.resize(samples * k), best_score_.resize(samples * k), scored_.resize(samples);
  if (search.pruner_ != nullptr) {
    pruning_ = std::make_shared<Pruning>(*search.pruner_);
    return;
  }
  states_.resize(static_cast<size_t>(tiles));
  if (search.isa_.prepare != nullptr) prepared_.resize(prepared_bytes(search.isa_.packing, search.d()) * tiles);
  if (k > 2) lowers_.resize(samples);
  maxima_.resize(size_t(kTogether) * kTile * kChunk);
}

template <class T>
template <class X>
const float* Search<T>::Block<X>::rounded(int tile) {
  if constexpr (std::is_same_v<X, float>)
    return samples(tile);
  else
    return rounded_.data() + size_t(tile) * search_.d() * kTile;
}

template <class T>
template <class X>
const void* Search<T>::Block<X>::prepared(int tile) {
  if (search_.isa_.prepare == nullptr) return rounded(tile);
  return prepared_.data() + size_t(tile) * prepared_bytes(search_.isa_.packing, search_.d());
}

template <class T>
template <class X>
void Search<T>::Block<X>::run(int tiles) {
  const Panels& panels = search_.panels();
  for (int i = 0; i < tiles; ++i) round(i);
  if (pruning_ != nullptr) return run_pruned(tiles);
  const int sides = search_.region_.mirrored ? 2 : 1;
  assert(tiles % sides == 0);
  for (int i = 0; i < tiles; i += sides) begin(i, sides);
  const int64_t bytes = prepared_bytes(search_.isa_.packing, panels.d);
  const int64_t group_bytes = bytes * search_.isa_.group / kTile;
  const int64_t chunk = std::clamp<int64_t>(kChunkBytes / group_bytes / kSpan, 1, kChunk / kSpan) * kSpan;
  for (int64_t first = 0; first < panels.groups; first += chunk) {
    const int64_t last = std::min(first + chunk, panels.groups);
    for (int i = 0; i < tiles; i += kTogether)
      search_.isa_.filter(prepared(i), sides * bytes, std::min(kTogether, tiles - i) / sides, sides == 2, panels, first,
                          last, &states_[i], maxima_.data());
  }
  for (int i = 0; i < tiles; ++i) score_listed(i, 0, kTile);
}

template <class T>
template <class X>
void Search<T>::Block<X>::run_pruned(int tiles) {
  std::fill_n(scored_.begin(), tiles * kTile, 0);
  pruning_->run(rounded(0), tiles, [this](const std::vector<Candidate>& pairs) { score_candidates(pairs); });
}

template <class T>
template <class X>
void Search<T>::Block<X>::round(int tile) {
  if constexpr (!std::is_same_v<X, float>) {
    const int64_t size = search_.d() * kTile;
    const X* x = samples(tile);
    std::transform(x, x + size, rounded_.begin() + tile * size, [](X v) { return float(v); });
  }
}

// Prepares a tile; it and, with two sides, the image behind it have nothing listed yet.
template <class T>
template <class X>
void Search<T>::Block<X>::begin(int tile, int sides) {
  const int64_t d = search_.d();
  double squares[2][kTile], about[kTile], residuals[kTile];
  for (int i = 0; i < sides; ++i) search_.isa_.norms(rounded(tile + i), d, squares[i]);
  const bool prepares = search_.isa_.prepare != nullptr;
  if (prepares)
    search_.isa_.prepare(rounded(tile), search_.middle_.data(), search_.step_, d,
                         prepared_.data() + size_t(tile) * prepared_bytes(search_.isa_.packing, d), about, residuals);
  for (int l = 0; l < kTile; ++l) {
    double square = squares[0][l];
    for (int i = 1; i < sides; ++i) square = std::max(square, squares[i][l]);
    double whole = std::sqrt(square);
    if (!std::is_same_v<X, float>) whole += std::sqrt(double(d)) * kTiny32;  // what is less became zero
    double norm = whole, residual = 0;
    if (prepares) {
      norm = std::sqrt(about[l]);
      residual = std::sqrt(residuals[l]) * kRoundUp + 4 * kUnit32 * (whole + norm);
      norm += search_.whole_share_ * whole;
    }
    // The norm also stands for that of x^, and for x before it was rounded to float32.
    const auto guarded = [&](double v) { return up(v) < search_.huge_norm_ ? up(v) : kInf; };
    for (int i = 0; i < sides; ++i) {
      TileState& state = states_[tile + i];
      state.whole[l] = guarded(whole);
      state.norm[l] = state.whole[l] < kInf ? guarded(norm + residual) : kInf;
      state.residual[l] = up(residual);
      state.floor[l] = -kInf;
      state.listed[l] = scored_[(tile + i) * kTile + l] = 0;
      if (search_.k() > 2) lowers_[(tile + i) * kTile + l].clear();
    }
  }
  for (int i = 0; i < sides; ++i) {
    TileState& state = states_[tile + i];
    state.search = this, state.k = search_.k();
    state.full = make_room, state.raise = raise_floor;
  }
}

template <class T>
template <class X>
void Search<T>::Block<X>::raise_floor(TileState& state, int lane, float lower) {
  Block& self = *static_cast<Block*>(state.search);
  std::vector<float>& lowers = self.lowers_[self.tile_of(state) * kTile + lane];
  if (!(lower > -kInf)) lower = -kInf;  // also NaN
  if (int64_t(lowers.size()) == state.k) {
    if (!(lower > lowers.front())) return;
    std::pop_heap(lowers.begin(), lowers.end(), std::greater<>());
    lowers.pop_back();
  }
  lowers.push_back(lower);
  std::push_heap(lowers.begin(), lowers.end(), std::greater<>());
  if (int64_t(lowers.size()) == state.k) state.floor[lane] = std::max(state.floor[lane], lowers.front());
}

template <class T>
template <class X>
void Search<T>::Block<X>::make_room(TileState& state, int lane) {
  Entry* list = state.list[lane];
  const float floor = state.floor[lane];
  state.listed[lane] = int(std::remove_if(list, list + kListed, [&](Entry e) { return e.upper < floor; }) - list);
  if (state.listed[lane] <= kListed / 2) return;
  Block& self = *static_cast<Block*>(state.search);
  self.score_listed(self.tile_of(state), lane, lane + 1);
}

// Scores what is listed for samples [first, last) of a tile, and empties their lists.
template <class T>
template <class X>
void Search<T>::Block<X>::score_listed(int tile, int first, int last) {
  candidates_.clear();
  for (int lane = first; lane < last; ++lane) narrow(tile, lane);
  score_candidates(candidates_);
}

// From the groups listed for a sample to the targets that can win: by their scores in float32.
template <class T>
template <class X>
void Search<T>::Block<X>::narrow(int tile, int lane) {
  TileState& state = states_[tile];
  const float floor = state.floor[lane];
  int32_t groups[kListed];
  uint32_t masks[kListed];
  int listed = 0;
  for (int i = 0; i < state.listed[lane]; ++i)
    if (!(state.list[lane][i].upper < floor)) groups[listed++] = state.list[lane][i].group;
  state.listed[lane] = 0;
  state.floor[lane] = search_.isa_.narrow(rounded(tile) + lane, search_.panels(), state.whole[lane], groups, listed,
                                          state.k, floor, masks);
  for (int i = 0; i < listed; ++i)
    for (uint32_t mask = masks[i]; mask != 0; mask &= mask - 1)
      candidates_.push_back(
          {tile * kTile + lane, search_.order_[groups[i] * search_.isa_.group + __builtin_ctz(mask)]});
}

template <class T>
template <class X>
void Search<T>::Block<X>::score_candidates(const std::vector<Candidate>& pairs) {
  const int64_t d = search_.d();
  const size_t count = pairs.size();
  for (size_t i = 0; i < count; i += kMany) {
    const X* x[kMany];
    const T* y[kMany];
    T h[kMany];
    double s[kMany];
    for (size_t j = 0; j < kMany; ++j) {
      const Candidate& c = pairs[std::min(i + j, count - 1)];
      x[j] = samples(int(c.row / kTile)) + c.row % kTile, y[j] = search_.y_ + c.target * d, h[j] = search_.h_[c.target];
    }
    scores(x, kTile, y, h, d, s);
    for (size_t j = 0; j < kMany && i + j < count; ++j) insert(pairs[i + j].row, pairs[i + j].target, s[j]);
  }
}

template <class T>
template <class X>
void Search<T>::Block<X>::insert(int64_t row, int64_t target, double score) {
  const int k = int(search_.k());
  int64_t* index = &best_index_[row * k];
  double* best = &best_score_[row * k];
  int& scored = scored_[row];
  if (scored == k && !better(score, target, best[k - 1], index[k - 1])) return;
  int at = scored < k ? scored++ : k - 1;
  for (; at > 0 && better(score, target, best[at - 1], index[at - 1]); --at)
    best[at] = best[at - 1], index[at] = index[at - 1];
  best[at] = score, index[at] = target;
}

template class Search<float>;
template class Search<double>;
template class Search<float>::Block<float>;
template class Search<double>::Block<double>;
template class Search<double>::Block<float>;

}  // namespace otgen
