#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "../score.h"
#include "isa/isa.h"
#include "threads.h"

namespace otgen {
namespace {

constexpr double kUnit32 = 0x1p-24, kUnit64 = 0x1p-53;  // half a unit in the last place of 1
constexpr double kTiny32 = 0x1p-126;                    // the smallest normal float32
constexpr double kTiny64 = 0x1p-1074;                   // the smallest denormal float64
constexpr double kRoundUp = 1 + 0x1p-20;                // covers the few roundings made while a bound is evaluated
constexpr float kHugeNorm = 1e30f;                      // beyond it the filter could overflow: score everything
constexpr double kHugeScore = 0x1p1000;                 // likewise where a float64 score could
constexpr int64_t kChunkBytes = 1 << 18;                // targets read again and again by a block: an eighth of L2
constexpr int64_t kPackRows = 1 << 10;                  // targets that a thread packs at a time
constexpr int kTogether = 4;                            // tiles that the filter takes at a time: half of L1 at d = 64
constexpr float kInf = std::numeric_limits<float>::infinity();

int exponent_above(double v) {
  int e = 0;
  std::frexp(v, &e);
  return e;
}

double square(double v) { return v * v; }

// To float32, not below the exact value even after the few roundings made while the bound is used.
float up(double v) { return float(v * kRoundUp); }

}  // namespace

template <class T>
Search<T>::Search(const T* y, const T* h, int64_t m, int64_t d, int64_t k, int threads)
    : y_(y), h_(h), k_(k), isa_(isa_for(d)), order_(static_cast<size_t>(m)) {
  const KeepDenormals guard;
  panels_.m = m, panels_.d = d, panels_.groups = ceil_div(m, isa_.group);
  std::iota(order_.begin(), order_.end(), int64_t{0});
  std::stable_sort(order_.begin(), order_.end(), [h](int64_t a, int64_t b) { return h[a] > h[b]; });
  pack(frame(threads), threads);
}

template <class T>
typename Search<T>::Frame Search<T>::frame(int threads) const {
  const int64_t m = panels_.m, d = panels_.d, blocks = ceil_div(m, kPackRows);
  const auto rows = [&](int64_t b, const auto& f) {
    for (int64_t j = b * kPackRows; j < std::min(m, (b + 1) * kPackRows); ++j) f(j);
  };
  // Sums by block, added in the order of the blocks: the same numbers for any number of threads.
  std::vector<double> sums(size_t(blocks * d), 0.0), largest(static_cast<size_t>(blocks), 0.0);
  parallel_for(blocks, {threads, {}}, [&](int64_t b, int) {
    rows(b, [&](int64_t j) {
      for (int64_t c = 0; c < d; ++c) sums[b * d + c] += double(y_[j * d + c]) * 0x1p-40;  // far from overflow
    });
  });
  Frame frame{std::vector<double>(static_cast<size_t>(d), 0.0), 0.0, 1.0};
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t c = 0; c < d; ++c) frame.centre[c] += sums[b * d + c] / double(m) * 0x1p40;
  const double h_max = double(h_[order_.front()]), h_min = double(h_[order_.back()]);
  frame.h_centre = 0.5 * h_min + 0.5 * h_max;
  parallel_for(blocks, {threads, {}}, [&](int64_t b, int) {
    rows(b, [&](int64_t j) {
      for (int64_t c = 0; c < d; ++c)
        largest[b] = std::max(largest[b], std::abs(double(y_[j * d + c]) - frame.centre[c]));
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
  packed_y_.assign(size_t(groups) * d * group + kMaxGroup, 0.0f);
  packed_h_.assign(size_t(groups) * group + kMaxGroup, -kInf);
  bounds_.assign(size_t(groups) * 6 + kMaxGroup, 0.0f);
  if (isa_.packing == Packing::kBfloat16) {
    tiles_.assign(size_t(ceil_div(groups, 2) * 2) * ceil_div(d, kDepth) * group * kDepth, 0);
    tops_.assign(size_t(ceil_div(groups, 2) * 2), -kInf);
  }
  const int64_t rows = std::max<int64_t>(1, kPackRows / group), blocks = ceil_div(groups, rows);
  std::vector<double> largest(static_cast<size_t>(blocks), 0.0);
  parallel_for(blocks, {threads, {}}, [&](int64_t b, int) {
    for (int64_t g = b * rows; g < std::min(groups, (b + 1) * rows); ++g)
      largest[b] = std::max(largest[b], pack_group(g, frame));
  });
  const double y_largest = *std::max_element(largest.begin(), largest.end());
  huge_norm_ = float(std::min(double(kHugeNorm), kHugeScore * frame.scale / y_largest));
  float* bounds = bounds_.data();
  panels_.y = packed_y_.data(), panels_.h = packed_h_.data();
  panels_.tiles = tiles_.data(), panels_.top = tops_.data();
  panels_.filter = {bounds, bounds + groups, bounds + 2 * groups, bounds + 3 * groups};
  panels_.single = {bounds, bounds + 4 * groups, bounds + 5 * groups, bounds + 5 * groups};
}

// Packs one group and its bounds; returns the largest |y| 2^-a in it.
template <class T>
double Search<T>::pack_group(int64_t g, const Frame& frame) {
  const int64_t m = panels_.m, d = panels_.d, groups = panels_.groups, group = isa_.group;
  const int64_t steps = ceil_div(d, kDepth);
  const bool bfloat16 = isa_.packing == Packing::kBfloat16;
  const double scale = frame.scale;
  double y_norm = 0, y_residual = 0, y_original = 0, h_abs = 0, h_residual = 0, h_original = 0;
  double b_norm = 0, b_residual = 0;
  const int64_t count = std::min(group, m - g * group);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t j = order_[g * group + t];
    double norm = 0, residual = 0, original = 0, norm_b = 0, residual_b = 0;
    for (int64_t c = 0; c < d; ++c) {
      const double v = double(y_[j * d + c]), centred = (v - frame.centre[c]) * scale;
      const double slack = 2 * kUnit64 * std::abs(centred) + kTiny32;
      const float rounded = float(centred);
      packed_y_[(g * d + c) * group + t] = rounded;
      norm += square(rounded);
      residual += square(std::abs(centred - double(rounded)) + slack);
      original += square(v * scale);
      if (!bfloat16) continue;
      const uint16_t b = to_bfloat16(rounded);
      tiles_[((g * steps + c / kDepth) * group + t) * kDepth + c % kDepth] = b;
      norm_b += square(from_bfloat16(b));
      residual_b += square(std::abs(centred - double(from_bfloat16(b))) + slack);
    }
    y_norm = std::max(y_norm, norm), y_residual = std::max(y_residual, residual);
    b_norm = std::max(b_norm, norm_b), b_residual = std::max(b_residual, residual_b);
    y_original = std::max(y_original, original);
    const double centred = (double(h_[j]) - frame.h_centre) * scale;
    const float rounded = float(centred);
    packed_h_[g * group + t] = rounded;
    h_abs = std::max(h_abs, std::abs(double(rounded)));
    h_residual = std::max(h_residual, std::abs(centred - double(rounded)) + 2 * kUnit64 * std::abs(centred));
    h_original = std::max(h_original, std::abs(double(h_[j])) * scale);
  }
  if (bfloat16) {
    // Rows past the last target repeat it, for the maximum must be that of a target.
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t t = count; t < group; ++t)
        std::copy_n(&tiles_[((g * steps + s) * group + count - 1) * kDepth], kDepth,
                    &tiles_[((g * steps + s) * group + t) * kDepth]);
    tops_[g] = packed_h_[g * group];
  }
  y_norm = std::sqrt(y_norm), y_residual = std::sqrt(y_residual), y_original = std::sqrt(y_original);
  b_norm = std::sqrt(b_norm), b_residual = std::sqrt(b_residual);
  const double chain = double(2 * d + 8) * kUnit32, exact = double(2 * d + 4) * kUnit64;  // 4 more: maximum +- E
  const double largest = y_norm + y_residual;                                             // >= |y'|
  const double underflow =
      kTiny32 * (2.0 * double(d) + 4 + std::sqrt(double(d)) * largest) + double(d) * kTiny64 * scale;
  float* bound = bounds_.data() + g;  // alpha, beta, gamma and spread of the filter, then beta of single scores
  bound[0] = up(chain * h_abs + h_residual + exact * h_original + underflow);
  // 2 u |y'| covers the rounding of double samples to float32.
  const float single = up((chain + 2 * kUnit32) * largest + y_residual + exact * y_original);
  bound[4 * groups] = single;
  bound[groups] = bfloat16 ? up((chain + 2 * kUnit32) * (b_norm + largest) + b_residual + exact * y_original) : single;
  bound[2 * groups] = bfloat16 ? up(largest) : 0.0f;
  bound[3 * groups] = bfloat16 ? up(double(packed_h_[g * group]) - double(packed_h_[g * group + count - 1])) : 0.0f;
  return y_original;
}

template <class T>
template <class X>
Search<T>::Block<X>::Block(const Search& search, int tiles)
    : search_(search),
      exact_(new X[size_t(tiles) * search.d() * kTile]()),
      states_(tiles),
      lists_(size_t(tiles) * kTile),
      capacity_(int(std::max<int64_t>(16, 4 * search.k()))) {
  if constexpr (!std::is_same_v<X, float>) rounded_.resize(size_t(search.d()) * kTile * tiles);
  if (search.isa_.prepare != nullptr) prepared_.resize(prepared_size(search.d()) * tiles);
  for (auto& list : lists_) {
    list.entries.reserve(capacity_);
    list.lower.reserve(search.k());
    list.best_index.reserve(search.k() + 1);
    list.best_score.reserve(search.k() + 1);
  }
}

template <class T>
template <class X>
Search<T>::Block<X>::~Block() = default;

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
  return prepared_.data() + size_t(tile) * prepared_size(search_.d());
}

template <class T>
template <class X>
void Search<T>::Block<X>::run(int tiles) {
  const Panels& panels = search_.panels();
  for (int i = 0; i < tiles; ++i) begin(i);
  const int64_t prepared_bytes = search_.isa_.prepare == nullptr ? panels.d * kTile * int64_t(sizeof(float))
                                                                 : prepared_size(panels.d) * int64_t(sizeof(uint16_t));
  const int64_t group_bytes = panels.d * search_.isa_.group * int64_t(sizeof(float));
  const int64_t chunk = std::max<int64_t>(1, kChunkBytes / group_bytes / 2) * 2;  // even: the matrix unit takes pairs
  for (int64_t first = 0; first < panels.groups; first += chunk) {
    const int64_t last = std::min(first + chunk, panels.groups);
    for (int i = 0; i < tiles; i += kTogether)
      search_.isa_.filter(prepared(i), prepared_bytes, std::min(kTogether, tiles - i), panels, first, last,
                          &states_[i]);
  }
  for (int i = 0; i < tiles; ++i)
    for (int l = 0; l < kTile; ++l) score_listed(i, l);
}

template <class T>
template <class X>
void Search<T>::Block<X>::begin(int tile) {
  const int64_t d = search_.d();
  if constexpr (!std::is_same_v<X, float>) {
    const X* x = samples(tile);
    std::transform(x, x + d * kTile, rounded_.begin() + size_t(tile) * d * kTile, [](X v) { return float(v); });
  }
  double squares[kTile], residuals[kTile] = {};
  search_.isa_.norms(rounded(tile), d, squares);
  if (search_.isa_.prepare != nullptr)
    search_.isa_.prepare(rounded(tile), d, prepared_.data() + size_t(tile) * prepared_size(d), residuals);

  TileState& state = states_[tile];
  state.search = this;
  state.shortlist = shortlist;
  for (int l = 0; l < kTile; ++l) {
    // The norm also stands for that of x^, and for x before it was rounded to float32.
    const double residual = std::sqrt(residuals[l]) * kRoundUp;
    const float norm = up(std::sqrt(squares[l]) + residual);
    state.norm[l] = norm < search_.huge_norm_ ? norm : kInf;
    state.residual[l] = up(residual);
    state.floor[l] = -kInf;
    Shortlist& list = lists_[tile * kTile + l];
    list.entries.clear(), list.lower.clear(), list.best_index.clear(), list.best_score.clear();
  }
}

template <class T>
template <class X>
void Search<T>::Block<X>::shortlist(TileState& state, int lane, int32_t group, float upper, float lower) {
  Block& self = *static_cast<Block*>(state.search);
  const int tile = int(&state - self.states_.data());
  Shortlist& list = self.lists_[tile * kTile + lane];
  const size_t k = size_t(self.search_.k());

  if (!(lower > -kInf)) lower = -kInf;  // also NaN
  if (list.lower.size() < k || lower > list.lower.front()) {
    if (list.lower.size() == k) {
      std::pop_heap(list.lower.begin(), list.lower.end(), std::greater<>());
      list.lower.pop_back();
    }
    list.lower.push_back(lower);
    std::push_heap(list.lower.begin(), list.lower.end(), std::greater<>());
    if (list.lower.size() == k) state.floor[lane] = list.lower.front();
  }
  if (int(list.entries.size()) == self.capacity_) {
    const float floor = state.floor[lane];
    std::erase_if(list.entries, [floor](const Shortlist::Entry& e) { return e.upper < floor; });
    if (2 * int(list.entries.size()) > self.capacity_) self.score_listed(tile, lane);
  }
  list.entries.push_back({group, upper});
}

template <class T>
template <class X>
void Search<T>::Block<X>::score_listed(int tile, int lane) {
  Shortlist& list = lists_[tile * kTile + lane];
  const Panels& panels = search_.panels();
  const int64_t d = panels.d, group = search_.isa_.group;
  const float norm = states_[tile].norm[lane];
  float floor = states_[tile].floor[lane];

  candidates_.clear();
  for (const Shortlist::Entry& entry : list.entries) {
    if (entry.upper < floor) continue;
    const int64_t g = entry.group, first = g * group;
    const int count = int(std::min(group, panels.m - first));
    float s[kMaxGroup];
    search_.isa_.score_group(rounded(tile) + lane, panels.y + g * d * group, panels.h + first, d, s);
    const float error = panels.single.alpha[g] + panels.single.beta[g] * norm;
    for (int t = 0; t < count; ++t) {
      // NaN from an infinite bound must not hide a target.
      const float upper = s[t] + error, lower = s[t] - error;
      if (!(upper < floor))
        candidates_.push_back(
            {search_.order_[first + t], upper == upper ? upper : kInf, lower == lower ? lower : -kInf});
    }
  }
  list.entries.clear();

  // The k-th largest lower bound among these targets is a floor for all.
  const size_t k = size_t(search_.k());
  if (candidates_.size() >= k) {
    floors_.clear();
    for (const Candidate& candidate : candidates_) floors_.push_back(candidate.lower);
    std::nth_element(floors_.begin(), floors_.begin() + (k - 1), floors_.end(), std::greater<>());
    floor = std::max(floor, floors_[k - 1]);
  }
  for (const Candidate& candidate : candidates_)
    if (!(candidate.upper < floor)) score_exactly(list, samples(tile) + lane, candidate.target);
}

template <class T>
template <class X>
void Search<T>::Block<X>::score_exactly(Shortlist& list, const X* x, int64_t j) const {
  const int64_t d = search_.d();
  const double s = otgen::score(x, kTile, search_.y_ + j * d, search_.h_[j], d);
  auto& scores = list.best_score;
  auto& indices = list.best_index;
  const size_t k = size_t(search_.k());
  if (scores.size() == k && !better(s, j, scores.back(), indices.back())) return;
  size_t at = scores.size();
  while (at > 0 && better(s, j, scores[at - 1], indices[at - 1])) --at;
  scores.insert(scores.begin() + at, s);
  indices.insert(indices.begin() + at, j);
  if (scores.size() > k) scores.pop_back(), indices.pop_back();
}

template class Search<float>;
template class Search<double>;
template class Search<float>::Block<float>;
template class Search<double>::Block<double>;
template class Search<double>::Block<float>;

}  // namespace otgen
