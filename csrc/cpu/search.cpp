#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
constexpr float kInf = std::numeric_limits<float>::infinity();

int exponent_above(double v) {
  int e = 0;
  std::frexp(v, &e);
  return e;
}

}  // namespace

template <class T>
Search<T>::Search(const T* y, const T* h, int64_t m, int64_t d, int64_t k) : y_(y), h_(h), k_(k) {
  const KeepDenormals guard;
  const int64_t groups = ceil_div(m, kGroup);
  packed_y_.assign(size_t(groups) * d * kGroup, 0.0f);
  packed_h_.assign(size_t(groups) * kGroup, -kInf);
  alpha_.resize(groups);
  beta_.resize(groups);
  panels_ = {m, d, groups, packed_y_.data(), packed_h_.data(), alpha_.data(), beta_.data()};

  std::vector<double> centre(d, 0.0);
  for (int64_t j = 0; j < m; ++j)
    for (int64_t c = 0; c < d; ++c) centre[c] += double(y[j * d + c]) / double(m);
  const auto [h_min, h_max] = std::minmax_element(h, h + m);
  const double h_centre = 0.5 * double(*h_min) + 0.5 * double(*h_max);

  double largest = 0;
  for (int64_t j = 0; j < m; ++j) {
    largest = std::max(largest, std::abs(double(h[j]) - h_centre));
    for (int64_t c = 0; c < d; ++c) largest = std::max(largest, std::abs(double(y[j * d + c]) - centre[c]));
  }
  // 2^-a brings the largest number below 1. The exponent is kept where ldexp(1, -a) is finite and normal.
  const double scale = largest > 0 ? std::ldexp(1.0, -std::clamp(exponent_above(largest), -1000, 1000)) : 1.0;

  double y_largest = 0;  // largest |y| 2^-a
  for (int64_t g = 0; g < groups; ++g) {
    double y_norm = 0, y_residual = 0, y_original = 0, h_abs = 0, h_residual = 0, h_original = 0;
    for (int64_t t = 0; t < kGroup && g * kGroup + t < m; ++t) {
      const int64_t j = g * kGroup + t;
      double norm = 0, residual = 0, original = 0;
      for (int64_t c = 0; c < d; ++c) {
        const double v = double(y[j * d + c]), centred = (v - centre[c]) * scale;
        const float rounded = float(centred);
        packed_y_[(g * d + c) * kGroup + t] = rounded;
        const double r = std::abs(centred - double(rounded)) + 2 * kUnit64 * std::abs(centred) + kTiny32;
        norm += double(rounded) * double(rounded);
        residual += r * r;
        original += v * scale * (v * scale);
      }
      y_norm = std::max(y_norm, norm);
      y_residual = std::max(y_residual, residual);
      y_original = std::max(y_original, original);
      const double centred = (double(h[j]) - h_centre) * scale;
      const float rounded = float(centred);
      packed_h_[g * kGroup + t] = rounded;
      h_abs = std::max(h_abs, std::abs(double(rounded)));
      h_residual = std::max(h_residual, std::abs(centred - double(rounded)) + 2 * kUnit64 * std::abs(centred));
      h_original = std::max(h_original, std::abs(double(h[j])) * scale);
    }
    y_norm = std::sqrt(y_norm), y_residual = std::sqrt(y_residual), y_original = std::sqrt(y_original);
    // The + 4 covers the sums `maximum +- E` in the filter; 2 d the instruction sets without FMA.
    const double chain = double(2 * d + 4) * kUnit32, exact = double(2 * d + 4) * kUnit64;
    const double underflow =
        kTiny32 * (2.0 * double(d) + 4 + std::sqrt(double(d)) * y_norm) + double(d) * kTiny64 * scale;
    const double alpha = chain * h_abs + h_residual + exact * h_original + underflow;
    const double beta = (chain + 2 * kUnit32) * y_norm + y_residual + exact * y_original;
    alpha_[g] = float(alpha * kRoundUp);
    beta_[g] = float(beta * kRoundUp);
    y_largest = std::max(y_largest, y_original);
  }
  huge_norm_ = float(std::min(double(kHugeNorm), kHugeScore * scale / y_largest));
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
void Search<T>::Block<X>::run(int tiles) {
  const int64_t d = search_.d();
  const Panels& panels = search_.panels();
  const Isa& kernels = isa();

  for (int i = 0; i < tiles; ++i) {
    const X* x = samples(i);
    TileState& state = states_[i];
    state.search = this;
    state.shortlist = shortlist;
    double squares[kTile] = {};
    for (int64_t c = 0; c < d; ++c)
      for (int l = 0; l < kTile; ++l) squares[l] += double(x[c * kTile + l]) * double(x[c * kTile + l]);
    for (int l = 0; l < kTile; ++l) {
      const float norm = float(std::sqrt(squares[l]) * kRoundUp);
      state.norm[l] = norm < search_.huge_norm_ ? norm : kInf;
      state.floor[l] = -kInf;
      Shortlist& list = lists_[i * kTile + l];
      list.entries.clear(), list.lower.clear(), list.best_index.clear(), list.best_score.clear();
    }
    if constexpr (!std::is_same_v<X, float>)
      for (int64_t c = 0; c < d * kTile; ++c) rounded_[size_t(i) * d * kTile + c] = float(x[c]);
  }

  const int64_t chunk = std::max<int64_t>(1, kChunkBytes / (d * kGroup * int64_t(sizeof(float))));
  for (int64_t first = 0; first < panels.groups; first += chunk) {
    const int64_t last = std::min(first + chunk, panels.groups);
    for (int i = 0; i < tiles; ++i) {
      const float* x;
      if constexpr (std::is_same_v<X, float>)
        x = samples(i);
      else
        x = rounded_.data() + size_t(i) * d * kTile;
      kernels.filter(x, panels, first, last, states_[i]);
    }
  }
  for (int i = 0; i < tiles; ++i)
    for (int l = 0; l < kTile; ++l) score_listed(i, l);
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
  const float floor = states_[tile].floor[lane];
  const int64_t d = search_.d(), m = search_.panels().m;
  const size_t k = size_t(search_.k());
  const X* x = samples(tile) + lane;

  for (const Shortlist::Entry& entry : list.entries) {
    if (entry.upper < floor) continue;
    const int64_t first = int64_t(entry.group) * kGroup, last = std::min(first + kGroup, m);
    double s[kGroup];
    if (last - first == kGroup) {  // twelve chains at once hide the latency of each
      const T* y = search_.y_ + first * d;
      for (int t = 0; t < kGroup; ++t) s[t] = double(search_.h_[first + t]);
      for (int64_t c = 0; c < d; ++c) {
        const double xc = double(x[c * kTile]);
        for (int t = 0; t < kGroup; ++t) s[t] += xc * double(y[t * d + c]);
      }
    } else {
      for (int64_t j = first; j < last; ++j)
        s[j - first] = otgen::score(x, kTile, search_.y_ + j * d, search_.h_[j], d);
    }
    for (int64_t j = first; j < last; ++j) {
      const double sj = s[j - first];
      auto& scores = list.best_score;
      auto& indices = list.best_index;
      if (scores.size() == k && !better(sj, j, scores.back(), indices.back())) continue;
      size_t at = scores.size();
      while (at > 0 && better(sj, j, scores[at - 1], indices[at - 1])) --at;
      scores.insert(scores.begin() + at, sj);
      indices.insert(indices.begin() + at, j);
      if (scores.size() > k) scores.pop_back(), indices.pop_back();
    }
  }
  list.entries.clear();
}

template class Search<float>;
template class Search<double>;
template class Search<float>::Block<float>;
template class Search<double>::Block<double>;
template class Search<double>::Block<float>;

}  // namespace otgen
