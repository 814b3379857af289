// From groups to targets; a file includes it after it has defined, in its own namespace,
//   Vec      a vector of floats: kWidth, kAllLanes, load, broadcast, store; mul_add, add, sub, min, max, below,
//            largest
//   kGroup   targets in a group

constexpr int kAbreast = 4;                                     // sums, at least; eight were no faster
constexpr int kRow = (kGroup + Vec::kWidth - 1) / Vec::kWidth;  // vectors of a group; the last may lie half past it

// Scores of some samples against a group; several sums hide the latency of one.
template <int kSamples>
static inline void score_samples(const float* x, const Panels& panels, int64_t group, const Place* places,
                                 float* scores) {
  constexpr int kSums = kSamples * kRow < kAbreast ? kAbreast / (kSamples * kRow) : 1;
  const int64_t d = panels.d;
  const float* y = panels.y + group * d * kGroup;
  const float* rows[kSamples];
  const float zero = 0.0f;
  Vec sums[kSums][kSamples][kRow];
  for (int i = 0; i < kSamples; ++i) {
    rows[i] = x + places[i].row * d;
    for (int r = 0; r < kRow; ++r)
      for (int s = 0; s < kSums; ++s)
        sums[s][i][r] = s == 0 ? Vec::load(panels.h + group * kGroup + r * Vec::kWidth) : Vec::broadcast(&zero);
  }
  const auto add_product = [&](int64_t k, Vec to[kSamples][kRow]) {
    for (int r = 0; r < kRow; ++r) {
      const Vec ys = Vec::load(y + k * kGroup + r * Vec::kWidth);
      for (int i = 0; i < kSamples; ++i) to[i][r] = mul_add(Vec::broadcast(rows[i] + k), ys, to[i][r]);
    }
  };
  int64_t k = 0;
  for (; k + kSums <= d; k += kSums)
    for (int s = 0; s < kSums; ++s) add_product(k + s, sums[s]);
  for (; k < d; ++k) add_product(k, sums[0]);
  for (int i = 0; i < kSamples; ++i)
    for (int r = 0; r < kRow; ++r) {
      Vec sum = sums[0][i][r];
      for (int s = 1; s < kSums; ++s) sum = add(sum, sums[s][i][r]);
      sum.store(scores + int64_t{places[i].slot} * kMaxGroup + r * Vec::kWidth);
    }
}

static void score_group(const float* x, const Panels& panels, int64_t group, const Place* places, int64_t count,
                        float* scores) {
  for (; count >= 4; places += 4, count -= 4) score_samples<4>(x, panels, group, places, scores);
  if (count >= 2) score_samples<2>(x, panels, group, places, scores), places += 2, count -= 2;
  if (count == 1) score_samples<1>(x, panels, group, places, scores);
}

// Infinite, but for -inf in what is to lose.
struct Caps {
  float of_group[kRow * Vec::kWidth];  // past the targets of a group
  float but_one[2 * Vec::kWidth];      // in one lane, by where a vector is read
  constexpr Caps() : of_group(), but_one() {
    for (int t = 0; t < kRow * Vec::kWidth; ++t) of_group[t] = t < kGroup ? __builtin_inff() : -__builtin_inff();
    for (int t = 0; t < 2 * Vec::kWidth; ++t) but_one[t] = t != Vec::kWidth ? __builtin_inff() : -__builtin_inff();
  }
};
static constexpr Caps kCaps;

// From the scores of the groups listed for a sample, (listed, kMaxGroup) in float32: leaves in masks, of each group,
// the targets that can be among the k best. For k <= 2 the floor rises first, to what the best of these targets are
// sure of; a bound that is not a number raises nothing, and hides no target. Gives the floor.
static float narrow(const float* scores, const Panels& panels, float whole, const int32_t* groups, int64_t listed,
                    int64_t k, float floor, uint32_t* masks) {
  const float lowest = -__builtin_inff();
  const auto error_of_group = [&](int64_t g) { return panels.single.alpha[g] + panels.single.beta[g] * whole; };
  if (k <= 2) {
    Vec best = Vec::broadcast(&lowest), second = best;
    for (int64_t i = 0; i < listed; ++i) {
      const float error = error_of_group(groups[i]);
      for (int r = 0; r < kRow; ++r) {
        const Vec score = Vec::load(scores + i * kMaxGroup + r * Vec::kWidth);
        const Vec lower = max(sub(score, Vec::broadcast(&error)), Vec::broadcast(&lowest));
        const Vec sure = min(lower, Vec::load(kCaps.of_group + r * Vec::kWidth));
        second = max(second, min(best, sure)), best = max(best, sure);
      }
    }
    float sure = largest(best);
    if (k == 2) {  // the largest without one of those that are it
      const int lane = __builtin_ctz(~below(best, Vec::broadcast(&sure)) & Vec::kAllLanes);
      sure = largest(max(second, min(best, Vec::load(kCaps.but_one + Vec::kWidth - lane))));
    }
    floor = floor < sure ? sure : floor;
  }
  for (int64_t i = 0; i < listed; ++i) {
    const float error = error_of_group(groups[i]);
    const int64_t left = panels.m - int64_t(groups[i]) * kGroup;
    uint32_t mask = 0;
    for (int r = 0; r < kRow; ++r) {
      const Vec score = Vec::load(scores + i * kMaxGroup + r * Vec::kWidth);
      mask |= (~below(add(score, Vec::broadcast(&error)), Vec::broadcast(&floor)) & Vec::kAllLanes)
              << (r * Vec::kWidth);
    }
    masks[i] = mask & ((1u << (left < kGroup ? left : kGroup)) - 1);
  }
  return floor;
}
