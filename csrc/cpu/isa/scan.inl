// What a filter does with the maxima of groups; a file includes it after it has defined, in its own namespace,
//   Vec   a vector of floats: kWidth, kAllLanes, load, broadcast, store; mul_add, add, sub, min, max, below

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

// Lists what may win. The floor rises first, so that few groups pass.
static inline void scan(const float* maxima, int64_t first, int64_t count, int lane0, const Panels& panels,
                        TileState& state) {
  if (state.k <= 2)
    risen(Vec::load(state.floor + lane0), maxima, first, count, lane0, panels, state).store(state.floor + lane0);
  Vec threshold{};
  for (int64_t i = 0; i < count; ++i) {
    const int64_t g = first + i;
    if (i % kSpan == 0) threshold = sub(Vec::load(state.floor + lane0), error_of(panels.span, g / kSpan, lane0, state));
    const float* row = maxima + i * Vec::kWidth;
    // Not below, rather than at least: where |x| is infinite this is NaN, and the group must be scored again.
    uint32_t hits = ~below(Vec::load(row), threshold) & Vec::kAllLanes;
    if (hits == 0) continue;
    const Vec error = error_of(panels.filter, g, lane0, state), upper = add(Vec::load(row), error);
    hits &= ~below(upper, Vec::load(state.floor + lane0));
    float uppers[Vec::kWidth], errors[Vec::kWidth];
    upper.store(uppers), error.store(errors);
    for (; hits != 0; hits &= hits - 1) {
      const int l = __builtin_ctz(hits), lane = lane0 + l;
      if (state.k > 2) state.raise(state, lane, row[l] - errors[l] - panels.filter.spread[g]);
      if (state.listed[lane] == kListed) state.full(state, lane);
      state.list[lane][state.listed[lane]++] = {int32_t(g), uppers[l]};
    }
  }
}

// The same for some tiles: maxima is (tiles, kTile / kWidth, kChunk, kWidth).
static void scan_tiles(const float* maxima, int tiles, const Panels& panels, int64_t first, int64_t last,
                       TileState* states) {
  for (int i = 0; i < tiles; ++i)
    for (int lane = 0; lane < kTile; lane += Vec::kWidth)
      scan(maxima + (i * kTile + lane) * kChunk, first, last - first, lane, panels, states[i]);
}
