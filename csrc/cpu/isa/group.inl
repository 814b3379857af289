// What every filter needs around it; a file includes it after it has defined, in its own namespace,
//   Vec      a vector of floats: kWidth, kAllLanes, load, broadcast, store; mul_add, add, max, below
//   kGroup   targets in a group

// Puts a group on the shortlist of those samples, lane0 and following, whose floor its maximum may reach.
static inline void offer(Vec best, int64_t g, int lane0, const Panels& panels, TileState& state) {
  const Bound& bound = panels.filter;
  const Vec rough =
      mul_add(Vec::broadcast(bound.gamma + g), Vec::load(state.residual + lane0), Vec::broadcast(bound.alpha + g));
  const Vec error = mul_add(Vec::broadcast(bound.beta + g), Vec::load(state.norm + lane0), rough);
  // Not below, rather than at least: where |x| is infinite this is NaN, and the group must be scored again.
  uint32_t hits = ~below(add(best, error), Vec::load(state.floor + lane0)) & Vec::kAllLanes;
  if (hits == 0) return;
  float maxima[Vec::kWidth], errors[Vec::kWidth];
  best.store(maxima);
  error.store(errors);
  for (; hits != 0; hits &= hits - 1) {
    const int l = __builtin_ctz(hits);
    state.shortlist(state, lane0 + l, int32_t(g), maxima[l] + errors[l], maxima[l] - errors[l] - bound.spread[g]);
  }
}

// Scores of one sample, a column of its tile, against the targets of a group, in float32.
static void score_group(const float* x, const float* y, const float* h, int64_t d, float* out) {
  constexpr int kRow =
      (kGroup + Vec::kWidth - 1) / Vec::kWidth;  // the last vector may read past the group: see search.h
  Vec even[kRow], odd[kRow];
  const float zero = 0.0f;
  for (int r = 0; r < kRow; ++r) even[r] = Vec::load(h + r * Vec::kWidth), odd[r] = Vec::broadcast(&zero);
  int64_t k = 0;
  for (; k + 1 < d; k += 2) {  // two sums hide the latency of one
    const Vec x0 = Vec::broadcast(x + k * kTile), x1 = Vec::broadcast(x + (k + 1) * kTile);
    for (int r = 0; r < kRow; ++r) {
      even[r] = mul_add(x0, Vec::load(y + k * kGroup + r * Vec::kWidth), even[r]);
      odd[r] = mul_add(x1, Vec::load(y + (k + 1) * kGroup + r * Vec::kWidth), odd[r]);
    }
  }
  if (k < d) {
    const Vec x0 = Vec::broadcast(x + k * kTile);
    for (int r = 0; r < kRow; ++r) even[r] = mul_add(x0, Vec::load(y + k * kGroup + r * Vec::kWidth), even[r]);
  }
  for (int r = 0; r < kRow; ++r) add(even[r], odd[r]).store(out + r * Vec::kWidth);
}
