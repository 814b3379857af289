// From groups to targets; a file includes it after it has defined, in its own namespace,
//   Vec      a vector of floats: kWidth, kAllLanes, load, broadcast, store; mul_add, add, sub, min, max, below,
//            largest
//   kGroup   targets in a group

constexpr int kRow = (kGroup + Vec::kWidth - 1) / Vec::kWidth;  // vectors of a group; the last may read past it

// Scores of one sample, a column of its tile, against the targets of some groups, in float32. Several sums hide the
// latency of one.
template <int kGroups>
static inline void score_groups(const float* x, const Panels& panels, const int32_t* groups, Vec out[kGroups][kRow]) {
  const float zero = 0.0f;
  const float* y[kGroups];
  Vec odd[kGroups][kRow];
  for (int i = 0; i < kGroups; ++i) {
    const int64_t g = groups[i];
    y[i] = panels.y + g * panels.d * kGroup;
    for (int r = 0; r < kRow; ++r)
      out[i][r] = Vec::load(panels.h + g * kGroup + r * Vec::kWidth), odd[i][r] = Vec::broadcast(&zero);
  }
  const auto add_product = [&](int64_t k, Vec sums[kGroups][kRow]) {
    const Vec xs = Vec::broadcast(x + k * kTile);
    for (int i = 0; i < kGroups; ++i)
      for (int r = 0; r < kRow; ++r)
        sums[i][r] = mul_add(xs, Vec::load(y[i] + k * kGroup + r * Vec::kWidth), sums[i][r]);
  };
  int64_t k = 0;
  for (; k + 1 < panels.d; k += 2) add_product(k, out), add_product(k + 1, odd);
  if (k < panels.d) add_product(k, out);
  for (int i = 0; i < kGroups; ++i)
    for (int r = 0; r < kRow; ++r) out[i][r] = add(out[i][r], odd[i][r]);
}

struct Lanes {
  float cap[kRow * Vec::kWidth];
  constexpr Lanes() : cap() {
    for (int t = 0; t < kRow * Vec::kWidth; ++t) cap[t] = t < kGroup ? __builtin_inff() : -__builtin_inff();
  }
};
static constexpr Lanes kLanes;  // infinite for the targets of a group, -inf for what lies past it

// Scores the groups listed for a sample, a column of its tile, in float32, and leaves in masks, of each group, the
// targets that can be among the k best. For k <= 2 the floor rises first, to what the best of these targets are sure
// of; a bound that is not a number raises nothing, and hides no target. Gives the floor.
static float narrow(const float* x, const Panels& panels, float whole, const int32_t* groups, int listed, int64_t k,
                    float floor, uint32_t* masks) {
  const float lowest = -__builtin_inff();
  Vec scores[kListed][kRow], best = Vec::broadcast(&lowest), second = best;
  float errors[kListed];
  int scored = 0;
  for (; scored + 1 < listed; scored += 2) score_groups<2>(x, panels, groups + scored, scores + scored);
  if (scored < listed) score_groups<1>(x, panels, groups + scored, scores + scored);
  for (int i = 0; i < listed; ++i) {
    const int64_t g = groups[i];
    errors[i] = panels.single.alpha[g] + panels.single.beta[g] * whole;
    for (int r = 0; r < kRow; ++r) {
      const Vec lower = max(sub(scores[i][r], Vec::broadcast(errors + i)), Vec::broadcast(&lowest));
      const Vec sure = min(lower, Vec::load(kLanes.cap + r * Vec::kWidth));
      second = max(second, min(best, sure)), best = max(best, sure);
    }
  }
  if (k <= 2) {
    float sure = largest(best);
    if (k == 2) {  // the largest without one of those that are it
      float lanes[Vec::kWidth];
      best.store(lanes);
      lanes[__builtin_ctz(~below(best, Vec::broadcast(&sure)) & Vec::kAllLanes)] = lowest;
      sure = largest(max(second, Vec::load(lanes)));
    }
    floor = floor < sure ? sure : floor;
  }
  for (int i = 0; i < listed; ++i) {
    const int64_t left = panels.m - int64_t(groups[i]) * kGroup;
    uint32_t mask = 0;
    for (int r = 0; r < kRow; ++r)
      mask |= (~below(add(scores[i][r], Vec::broadcast(errors + i)), Vec::broadcast(&floor)) & Vec::kAllLanes)
              << (r * Vec::kWidth);
    masks[i] = mask & ((1u << (left < kGroup ? left : kGroup)) - 1);
  }
  return floor;
}
