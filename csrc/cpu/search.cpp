// The three passes of a search, over a block of samples.
#include "search.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "../score.h"
#include "bounds.h"
#include "isa/isa.h"
#include "prune.h"

namespace otgen {
namespace {

constexpr int64_t kLine = 16;             // numbers of float32 in a cache line
constexpr int64_t kChunkBytes = 1 << 18;  // targets read again and again by a block: an eighth of L2

// A tile about the middle in float32: what a filter that has no `prepare` reads of samples with images.
void prepare_floats(const float* x, const float* middle, float, int64_t d, void* out, double* squares,
                    double* residual_squares) {
  float* tile = static_cast<float*>(out);
  std::fill_n(squares, kTile, 0.0), std::fill_n(residual_squares, kTile, 0.0);
  for (int64_t c = 0; c < d; ++c)
    for (int l = 0; l < kTile; ++l) {
      const float v = x[c * kTile + l] - middle[c];
      tile[c * kTile + l] = v;
      squares[l] += double(v) * double(v);
    }
}

}  // namespace

template <class T>
template <class X>
Search<T>::Block<X>::Block(const Search& search, int tiles)
    : search_(search), exact_(new X[size_t(tiles) * search.d() * kTile]()) {
  const size_t samples = size_t(tiles) * kTile, k = size_t(search.k());
  rows_.resize(size_t(search.d()) * samples);
  if constexpr (!std::is_same_v<X, float>) rounded_.resize(rows_.size());
  best_index_.resize(samples * k), best_score_.resize(samples * k), scored_.resize(samples);
  if (search.pruner_ != nullptr) {
    pruning_ = std::make_shared<Pruning>(*search.pruner_);
    return;
  }
  states_.resize(static_cast<size_t>(tiles));
  if constexpr (!std::is_same_v<X, float>) rounded_rows_.resize(rows_.size());
  if (search.prepares_) prepared_.resize(prepared_bytes(search.isa_.packing, search.d()) * tiles);
  if (k > 2) lowers_.resize(samples);
  survivors_.list.resize(samples * kListed);
  survivors_.search = this, survivors_.full = make_room;
  maxima_.resize(std::max(kTogether, search.region_.images) * size_t{kTile} * kApart);
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
const float* Search<T>::Block<X>::rounded_rows() const {
  if constexpr (std::is_same_v<X, float>)
    return rows_.data();
  else
    return rounded_rows_.data();
}

template <class T>
template <class X>
const void* Search<T>::Block<X>::prepared(int tile) {
  if (!search_.prepares_) return rounded(tile);
  return prepared_.data() + size_t(tile) * prepared_bytes(search_.isa_.packing, search_.d());
}

template <class T>
template <class X>
void Search<T>::Block<X>::run(int tiles, int lanes) {
  const Panels& panels = search_.panels();
  for (int i = 0; i < tiles; ++i) lay_out(i);
  if (pruning_ != nullptr) return run_pruned(tiles);
  const int images = search_.region_.images;
  assert(tiles % images == 0);
  for (int i = 0; i < tiles; i += images) begin(i, i + images < tiles ? kTile : lanes);
  const int64_t bytes = prepared_bytes(search_.isa_.packing, panels.d);
  const int64_t group_bytes = bytes * search_.isa_.group / kTile;
  const int64_t chunk = std::clamp<int64_t>(kChunkBytes / group_bytes / kSpan, 1, kChunk / kSpan) * kSpan;
  for (int64_t first = 0; first < panels.groups; first += chunk) {
    const int64_t last = std::min(first + chunk, panels.groups);
    if (images > 1)
      for (int i = 0; i < tiles; i += images)
        search_.isa_.filter_images(prepared(i), images, panels, first, last, &states_[i], maxima_.data());
    else
      for (int i = 0; i < tiles; i += kTogether)
        search_.isa_.filter(prepared(i), bytes, std::min(kTogether, tiles - i), panels, first, last, &states_[i],
                            maxima_.data());
  }
  score_survivors();
}

template <class T>
template <class X>
void Search<T>::Block<X>::run_pruned(int tiles) {
  std::fill_n(scored_.begin(), tiles * kTile, 0);
  pruning_->run(rounded(0), tiles, [this](const std::vector<Candidate>& pairs) { score_candidates(pairs); });
}

// Copies a tile by rows, for what reads one sample at a time; and both in float32, as far as they are read.
template <class T>
template <class X>
void Search<T>::Block<X>::lay_out(int tile) {
  const int64_t d = search_.d(), size = d * kTile;
  const X* x = samples(tile);
  X* rows = &rows_[size_t(tile) * size];
  for (int64_t first = 0; first < d; first += kLine)
    for (int l = 0; l < kTile; ++l)
      for (int64_t c = first; c < std::min(first + kLine, d); ++c) rows[l * d + c] = x[c * kTile + l];
  if constexpr (!std::is_same_v<X, float>) {
    const auto round = [](X v) { return float(v); };
    std::transform(x, x + size, rounded_.begin() + tile * size, round);
    if (!rounded_rows_.empty()) std::transform(rows, rows + size, rounded_rows_.begin() + tile * size, round);
  }
}

// Prepares a tile; of it and its images nothing is known yet. Lanes that are not used want nothing.
template <class T>
template <class X>
void Search<T>::Block<X>::begin(int tile, int lanes) {
  const int64_t d = search_.d();
  const int images = search_.region_.images;
  double squares[kTile], about[kTile], residuals[kTile];
  if (images == 1) search_.isa_.norms(rounded(tile), d, squares);
  if (search_.prepares_) {
    const auto prepare = search_.isa_.prepare != nullptr ? search_.isa_.prepare : prepare_floats;
    prepare(rounded(tile), search_.middle_.data(), search_.step_, d,
            prepared_.data() + size_t(tile) * prepared_bytes(search_.isa_.packing, d), about, residuals);
  }
  for (int l = 0; l < kTile; ++l) {
    double whole = images == 1 ? std::sqrt(squares[l]) : std::sqrt(about[l]) + search_.middle_norm_;
    if (!std::is_same_v<X, float>) whole += std::sqrt(double(d)) * kTiny32;  // what is less became zero
    double norm = whole, residual = 0;
    if (search_.prepares_) {
      norm = std::sqrt(about[l]);
      residual = std::sqrt(residuals[l]) * kRoundUp + 4 * kUnit32 * (whole + norm);
      norm += search_.whole_share_ * whole;
    }
    // The norm also stands for that of x^, and for x before it was rounded to float32.
    const auto guarded = [&](double v) { return up(v) < search_.huge_norm_ ? up(v) : kInf; };
    for (int i = 0; i < images; ++i) {
      TileState& state = states_[tile + i];
      state.whole[l] = guarded(whole);
      state.norm[l] = state.whole[l] < kInf ? guarded(norm + residual) : kInf;
      state.residual[l] = up(residual);
      state.floor[l] = l < lanes ? -kInf : kInf;
      scored_[(tile + i) * kTile + l] = 0;
      if (search_.k() > 2) lowers_[(tile + i) * kTile + l].clear();
    }
  }
  for (int i = 0; i < images; ++i) {
    TileState& state = states_[tile + i];
    state.k = search_.k(), state.row = (tile + i) * kTile;
    state.survivors = &survivors_, state.raise = raise_floor;
  }
}

template <class T>
template <class X>
void Search<T>::Block<X>::raise_floor(TileState& state, int lane, float lower) {
  Block& self = *static_cast<Block*>(state.survivors->search);
  std::vector<float>& lowers = self.lowers_[state.row + lane];
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
void Search<T>::Block<X>::make_room(Survivors& survivors) {
  Block& self = *static_cast<Block*>(survivors.search);
  self.drop_survivors();
  if (survivors.count > int64_t(survivors.list.size()) / 2) self.score_survivors();
}

// Forgets what floors have risen above since.
template <class T>
template <class X>
void Search<T>::Block<X>::drop_survivors() {
  Survivor* list = survivors_.list.data();
  int64_t kept = 0;
  for (int64_t i = 0; i < survivors_.count; ++i) {
    const Survivor s = list[i];
    list[kept] = s;
    kept += !(s.upper < states_[s.row / kTile].floor[s.row % kTile]);
  }
  survivors_.count = kept;
}

// By group, in which order they are scored, so that targets are read once for all samples that they may win; and by
// sample, in which order their scores are kept.
template <class T>
template <class X>
void Search<T>::Block<X>::sort_survivors() {
  const size_t count = size_t(survivors_.count);
  const Survivor* list = survivors_.list.data();
  const auto by_group = [](const Survivor& a, const Survivor& b) { return a.group < b.group; };
  const auto [lowest, highest] = std::minmax_element(list, list + count, by_group);
  first_group_ = lowest->group;
  row_ends_.assign(scored_.size() + 1, 0), group_ends_.assign(size_t(highest->group - first_group_) + 2, 0);
  for (size_t i = 0; i < count; ++i) ++row_ends_[list[i].row + 1], ++group_ends_[list[i].group - first_group_ + 1];
  std::partial_sum(row_ends_.begin(), row_ends_.end(), row_ends_.begin());
  std::partial_sum(group_ends_.begin(), group_ends_.end(), group_ends_.begin());
  if (groups_.size() < count) {
    groups_.resize(count), places_.resize(count), masks_.resize(count);
    scores_.resize(count * kMaxGroup);
  }
  for (size_t i = 0; i < count; ++i) {  // their beginnings become their ends
    const int32_t slot = row_ends_[list[i].row]++;
    groups_[slot] = list[i].group;
    places_[group_ends_[list[i].group - first_group_]++] = {list[i].row, slot};
  }
}

// From the groups that survived to the targets that can win, by their scores in float32, and to the best of these.
template <class T>
template <class X>
void Search<T>::Block<X>::score_survivors() {
  drop_survivors();
  if (survivors_.count == 0) return;
  sort_survivors();
  for (size_t i = 0, first = 0; i + 1 < group_ends_.size(); first = size_t(group_ends_[i++]))
    if (size_t(group_ends_[i]) > first)
      search_.isa_.score_group(rounded_rows(), search_.panels(), first_group_ + int64_t(i), &places_[first],
                               group_ends_[i] - int64_t(first), scores_.data());
  candidates_.clear();
  for (int32_t row = 0, first = 0; row + 1 < int32_t(row_ends_.size()); first = row_ends_[row++])
    if (row_ends_[row] > first) narrow(row, first, row_ends_[row]);
  survivors_.count = 0;
  score_candidates(candidates_);
}

// The survivors of one sample.
template <class T>
template <class X>
void Search<T>::Block<X>::narrow(int32_t row, int32_t first, int32_t last) {
  TileState& state = states_[row / kTile];
  float& floor = state.floor[row % kTile];
  floor = search_.isa_.narrow(&scores_[size_t(first) * kMaxGroup], search_.panels(), state.whole[row % kTile],
                              &groups_[first], last - first, state.k, floor, &masks_[first]);
  for (int32_t i = first; i < last; ++i)
    for (uint32_t mask = masks_[i]; mask != 0; mask &= mask - 1)
      candidates_.push_back({row, search_.order_[int64_t{groups_[i]} * search_.isa_.group + __builtin_ctz(mask)]});
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
      x[j] = &rows_[size_t(c.row * d)], y[j] = search_.y_ + c.target * d, h[j] = search_.h_[c.target];
    }
    scores(x, y, h, d, s);
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

template class Search<float>::Block<float>;
template class Search<double>::Block<double>;
template class Search<double>::Block<float>;

}  // namespace otgen
