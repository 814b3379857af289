// The two loops of prune.cpp, for D coordinates; a file includes it after it has defined, in its own namespace,
//   Vec   a vector of floats: kWidth, kAllLanes, load, broadcast, store; mul_add, add, sub, min, max, below, largest

// Scores at the centre of a box and of its faces: v[0], then two for each coordinate.
template <int D>
static inline void probe(const float* y, const float* h, int64_t stride, int64_t i, const float* centre,
                         const float* half, Vec* v) {
  Vec s = Vec::load(h + i);
#pragma GCC unroll 5
  for (int k = 0; k < D; ++k) s = mul_add(Vec::broadcast(centre + k), Vec::load(y + k * stride + i), s);
  v[0] = s;
  const float zero = 0.0f;
#pragma GCC unroll 5
  for (int k = 0; k < D; ++k) {
    const Vec away = mul_add(Vec::broadcast(half + k), Vec::load(y + k * stride + i), Vec::broadcast(&zero));
    v[1 + 2 * k] = add(s, away), v[2 + 2 * k] = sub(s, away);
  }
}

// Numbers of the best targets at the probes, one for each, or fewer; leaves the scores at the centre.
template <int D>
static inline int find_rivals(const float* y, const float* h, int64_t stride, const float* centre, const float* half,
                              float* scores, int64_t* rivals) {
  constexpr int kProbes = 2 * D + 1;
  const float lowest = -__builtin_inff();
  Vec best[kProbes], v[kProbes];
#pragma GCC unroll 11
  for (int p = 0; p < kProbes; ++p) best[p] = Vec::broadcast(&lowest);
  for (int64_t i = 0; i < stride; i += Vec::kWidth) {
    probe<D>(y, h, stride, i, centre, half, v);
    v[0].store(scores + i);
#pragma GCC unroll 11
    for (int p = 0; p < kProbes; ++p) best[p] = max(v[p], best[p]);  // the best where a score is not a number
  }
#pragma GCC unroll 11
  for (int p = 0; p < kProbes; ++p) {
    const float highest = largest(best[p]);
    best[p] = Vec::broadcast(&highest);
  }
  int count = 0;
  uint32_t wanted = (1u << kProbes) - 1;
  for (int64_t i = 0; i < stride && wanted != 0; i += Vec::kWidth) {
    probe<D>(y, h, stride, i, centre, half, v);
    uint32_t hits[kProbes], any = 0;
#pragma GCC unroll 11
    for (int p = 0; p < kProbes; ++p) any |= hits[p] = ~below(v[p], best[p]) & Vec::kAllLanes;
    if (any == 0) continue;
    for (int p = 0; p < kProbes; ++p) {
      if ((wanted >> p & 1u) == 0 || hits[p] == 0) continue;
      wanted &= ~(1u << p);
      const int64_t rival = i + __builtin_ctz(hits[p]);
      bool known = false;
      for (int r = 0; r < count; ++r) known |= rivals[r] == rival;
      if (!known) rivals[count++] = rival;
    }
  }
  return count;
}

// Of the smallest values of s_j - s_i in the box, for the rival i, the k-th largest.
template <int D>
static float floor_of(const float* y, int64_t stride, const float* half, const float* scores, int64_t rival,
                      int64_t k) {
  const float lowest = -__builtin_inff(), zero = 0.0f;
  float tops[kPrunedBest], some[Vec::kWidth];  // in falling order
  for (int64_t r = 0; r < k; ++r) tops[r] = lowest;
  Vec floor = Vec::broadcast(&lowest), rivals[D], less[D];
#pragma GCC unroll 5
  for (int c = 0; c < D; ++c) {
    rivals[c] = Vec::broadcast(y + c * stride + rival);
    less[c] = sub(Vec::broadcast(&zero), Vec::broadcast(half + c));
  }
  for (int64_t i = 0; i < stride; i += Vec::kWidth) {
    Vec lead = sub(Vec::load(scores + i), Vec::broadcast(scores + rival));
#pragma GCC unroll 5
    for (int c = 0; c < D; ++c) {
      const Vec ys = Vec::load(y + c * stride + i);
      lead = mul_add(less[c], max(sub(ys, rivals[c]), sub(rivals[c], ys)), lead);
    }
    uint32_t higher = below(floor, lead);
    if (higher == 0) continue;
    lead.store(some);
    for (; higher != 0; higher &= higher - 1) {
      const float v = some[__builtin_ctz(higher)];
      int64_t at = k;
      for (; at > 0 && tops[at - 1] < v; --at)
        if (at < k) tops[at] = tops[at - 1];
      if (at < k) tops[at] = v;
    }
    floor = Vec::broadcast(&tops[k - 1]);
  }
  return tops[k - 1];
}

template <int D>
static int64_t survivors(const float* y, const float* h, int64_t stride, const float* centre, const float* half,
                         float margin, int64_t k, float* scores, int32_t* kept) {
  int64_t rivals[2 * D + 1];
  const int count = find_rivals<D>(y, h, stride, centre, half, scores, rivals);
  const float lowest = -__builtin_inff();
  float limits[2 * D + 1];
  for (int r = 0; r < count; ++r)
    limits[r] = (k > 2 ? floor_of<D>(y, stride, half, scores, rivals[r], k) : 0.0f) - margin;
  int64_t left = 0;
  for (int64_t i = 0; i < stride; i += Vec::kWidth) {
    const Vec s = Vec::load(scores + i);
    Vec ys[D];
#pragma GCC unroll 5
    for (int c = 0; c < D; ++c) ys[c] = Vec::load(y + c * stride + i);
    uint32_t lost = 0, once = 0;
    for (int r = 0; r < count && lost != Vec::kAllLanes; ++r) {
      Vec lead = sub(s, Vec::broadcast(scores + rivals[r]));
#pragma GCC unroll 5
      for (int c = 0; c < D; ++c) {
        const Vec rival = Vec::broadcast(y + c * stride + rivals[r]);
        lead = mul_add(Vec::broadcast(half + c), max(sub(ys[c], rival), sub(rival, ys[c])), lead);
      }
      const uint32_t loses = below(lead, Vec::broadcast(limits + r));
      lost |= k == 2 ? loses & once : loses;
      once |= loses;
    }
    for (uint32_t keep = ~lost & Vec::kAllLanes; keep != 0; keep &= keep - 1)
      if (h[i + __builtin_ctz(keep)] > lowest) kept[left++] = int32_t(i) + __builtin_ctz(keep);
  }
  return left;
}

static int64_t survivors(const float* y, const float* h, int64_t stride, int64_t d, const float* centre,
                         const float* half, float margin, int64_t k, float* scores, int32_t* kept) {
  static constexpr decltype(&survivors<1>) kByDim[kPrunedDim] = {survivors<1>, survivors<2>, survivors<3>, survivors<4>,
                                                                 survivors<5>};
  return kByDim[d - 1](y, h, stride, centre, half, margin, k, scores, kept);
}

template <int D>
static void best_of(const float* x, const float* y, const float* h, int64_t stride, int64_t count, float margin,
                    int64_t k, float* scores, uint32_t* masks) {
  const float lowest = -__builtin_inff();
  for (int64_t t = 0; t < count; ++t) masks[t] = 0;
  for (int lane = 0; lane < kTile; lane += Vec::kWidth) {
    Vec best = Vec::broadcast(&lowest), second = best, xs[D], tops[kPrunedBest];
    for (int64_t r = 0; r < k; ++r) tops[r] = best;
#pragma GCC unroll 5
    for (int c = 0; c < D; ++c) xs[c] = Vec::load(x + c * kTile + lane);
    for (int64_t t = 0; t < count; ++t) {
      Vec s = Vec::broadcast(h + t);
#pragma GCC unroll 5
      for (int c = 0; c < D; ++c) s = mul_add(xs[c], Vec::broadcast(y + c * stride + t), s);
      s.store(scores + t * Vec::kWidth);
      if (k <= 2)
        second = max(second, min(best, s)), best = max(best, s);
      else
        for (int64_t r = 0; r < k; ++r) {
          const Vec lower = min(tops[r], s);
          tops[r] = max(tops[r], s), s = lower;
        }
    }
    const Vec floor = sub(k == 1 ? best : k == 2 ? second : tops[k - 1], Vec::broadcast(&margin));
    for (int64_t t = 0; t < count; ++t)
      masks[t] |= (~below(Vec::load(scores + t * Vec::kWidth), floor) & Vec::kAllLanes) << lane;
  }
}

static void best_of(const float* x, const float* y, const float* h, int64_t stride, int64_t count, int64_t d,
                    float margin, int64_t k, float* scores, uint32_t* masks) {
  static constexpr decltype(&best_of<1>) kByDim[kPrunedDim] = {best_of<1>, best_of<2>, best_of<3>, best_of<4>,
                                                               best_of<5>};
  kByDim[d - 1](x, y, h, stride, count, margin, k, scores, masks);
}
