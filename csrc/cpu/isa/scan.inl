// What a filter does with the maxima of groups; a file includes it after it has defined, in its own namespace,
//   Vec   a vector of floats: kWidth, kAllLanes, load, broadcast, store; mul_add, add, sub, min, max, below,
//         one_where_below

constexpr int64_t kWord = 64;                     // bits
constexpr int64_t kInWord = kWord / Vec::kWidth;  // vectors whose lanes have a bit each in a word
static_assert(kSpan % kInWord == 0 && kTile * kListed / 2 >= kWord);

static inline Vec error_of(const Bound& bound, int64_t i, int lane0, const TileState& state) {
  const Vec rough =
      mul_add(Vec::broadcast(bound.gamma + i), Vec::load(state.residual + lane0), Vec::broadcast(bound.alpha + i));
  return mul_add(Vec::broadcast(bound.beta + i), Vec::load(state.norm + lane0), rough);
}

// The floor, risen to what the best of these maxima are sure of: (count, kWidth) from group `first`, for samples lane0
// and following. For k <= 2.
static inline Vec risen(Vec floor, const float* maxima, int64_t first, int64_t count, int lane0, const Panels& panels,
                        const TileState& state) {
  const float lowest = -__builtin_inff();
  for (int64_t i = 0; i < count; i += kSpan) {
    const int64_t span = (first + i) / kSpan, end = i + kSpan < count ? i + kSpan : count;
    Vec best = Vec::load(maxima + i * Vec::kWidth), second = Vec::broadcast(&lowest);
    for (int64_t j = i + 1; j < end; ++j) {
      const Vec v = Vec::load(maxima + j * Vec::kWidth);
      if (state.k == 2) second = max(second, min(best, v));
      best = max(best, v);
    }
    const Vec sure = sub(sub(state.k == 1 ? best : second, error_of(panels.span, span, lane0, state)),
                         Vec::broadcast(panels.span.spread + span));
    floor = max(sure, floor);  // the floor where the error is not a number
  }
  return floor;
}

// Likewise for k > 2, where the maxima of at least k groups are sure to exceed it, and of few more: by halving the
// interval that holds their k-th largest, for all lanes at a time. `floor` is (kWidth,).
static inline void raise_floors(float* floor, const float* maxima, int64_t first, int64_t count, int lane0,
                                const Panels& panels, const TileState& state) {
  if (count <= state.k) return;
  constexpr int kHalvings = 8;
  const auto each = [&](const auto& f) {  // f(maximum, what it may be too large by)
    for (int64_t i = 0; i < count; i += kSpan) {
      const int64_t span = (first + i) / kSpan, end = i + kSpan < count ? i + kSpan : count;
      const Vec loss = add(error_of(panels.span, span, lane0, state), Vec::broadcast(panels.span.spread + span));
      for (int64_t j = i; j < end; ++j) f(Vec::load(maxima + j * Vec::kWidth), loss);
    }
  };
  const float infinite = __builtin_inff(), none = 0.0f, lowest = -infinite;
  Vec least = Vec::broadcast(&infinite), most = Vec::broadcast(&lowest);  // not of what is no number
  each([&](Vec v, Vec loss) { least = min(sub(v, loss), least), most = max(sub(v, loss), most); });
  float low[Vec::kWidth], high[Vec::kWidth], middle[Vec::kWidth], above[Vec::kWidth];
  max(Vec::load(floor), least).store(low), most.store(high);
  for (int r = 0; r < kHalvings; ++r) {
    for (int l = 0; l < Vec::kWidth; ++l) middle[l] = 0.5f * low[l] + 0.5f * high[l];
    Vec sum = Vec::broadcast(&none);
    each([&](Vec v, Vec loss) { sum = add(sum, one_where_below(add(Vec::load(middle), loss), v)); });
    sum.store(above);
    for (int l = 0; l < Vec::kWidth; ++l) {
      const bool enough = above[l] >= float(state.k);
      (enough ? low : high)[l] = middle[l];
      if (enough && middle[l] > floor[l]) floor[l] = middle[l];
    }
  }
}

// Lists what may win, if its own error lets it pass: bit r kWidth + l is for group first + r and sample lane0 + l.
static inline void list_hits(uint64_t hits, const float* maxima, int64_t first, int lane0, const Panels& panels,
                             TileState& state) {
  Survivors& found = *state.survivors;
  if (found.count + kWord > int64_t(found.list.size())) found.full(found);
  const Bound& bound = panels.filter;
  int64_t count = found.count;
  for (; hits != 0; hits &= hits - 1) {
    const int bit = __builtin_ctzll(hits), lane = lane0 + bit % Vec::kWidth;
    const int64_t g = first + bit / Vec::kWidth;
    const float error = bound.alpha[g] + bound.gamma[g] * state.residual[lane] + bound.beta[g] * state.norm[lane];
    const float upper = maxima[bit] + error;
    if (state.k > 2 && !(upper < state.floor[lane])) state.raise(state, lane, maxima[bit] - error - bound.spread[g]);
    found.list[size_t(count)] = {state.row + lane, int32_t(g), upper};
    count += !(upper < state.floor[lane]);  // also where it is not a number
  }
  found.count = count;
}

// Bits of `count` vectors. Not below, rather than at least: where |x| is infinite the threshold is NaN, and the group
// must be scored again.
static inline __attribute__((always_inline)) uint64_t not_below(const float* vectors, int64_t count, Vec threshold) {
  uint64_t bits = 0;
#pragma GCC unroll 16
  for (int64_t r = 0; r < count; ++r)
    bits |= uint64_t(~below(Vec::load(vectors + r * Vec::kWidth), threshold) & Vec::kAllLanes) << (r * Vec::kWidth);
  return bits;
}

// Lists what may win. The floor rises first, so that few groups pass.
static inline void scan(const float* maxima, int64_t first, int64_t count, int lane0, const Panels& panels,
                        TileState& state) {
  if (state.k <= 2)
    risen(Vec::load(state.floor + lane0), maxima, first, count, lane0, panels, state).store(state.floor + lane0);
  else
    raise_floors(state.floor + lane0, maxima, first, count, lane0, panels, state);
  for (int64_t i = 0; i < count; i += kSpan) {
    const Vec error = error_of(panels.span, (first + i) / kSpan, lane0, state);
    const Vec threshold = sub(Vec::load(state.floor + lane0), error);
    const int64_t end = i + kSpan < count ? i + kSpan : count;
    for (int64_t j = i; j < end; j += kInWord) {
      const float* vectors = maxima + j * Vec::kWidth;
      const int64_t left = end - j;
      const uint64_t hits =
          left >= kInWord ? not_below(vectors, kInWord, threshold) : not_below(vectors, left, threshold);
      if (hits != 0) list_hits(hits, vectors, first + j, lane0, panels, state);
    }
  }
}

// The same for some tiles: maxima is (tiles, kTile / kWidth, kApart, kWidth).
static void scan_tiles(const float* maxima, int tiles, const Panels& panels, int64_t first, int64_t last,
                       TileState* states) {
  for (int i = 0; i < tiles; ++i)
    for (int lane = 0; lane < kTile; lane += Vec::kWidth)
      scan(maxima + (i * kTile + lane) * kApart, first, last - first, lane, panels, states[i]);
}
