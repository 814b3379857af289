// The inner loops, written once; each file of this folder includes them after it has defined, in its own namespace,
//   Vec            a vector of floats: kWidth, load, broadcast, mul_add, max
//   below(a, b)    the lanes with a < b as bits
//   kVectors       vectors of samples held at a time;  kTargets  targets held at a time, a divisor of kGroup

// ---- filter -----------------------------------------------------------------------------------------------------

constexpr int kSpan = kVectors * Vec::kWidth;  // samples held at a time
static_assert(kTile % kSpan == 0 && kGroup % kTargets == 0);

// Largest score of the group for kSpan samples. The accumulators start at the heights.
static inline void group_max(const float* x, const float* y, const float* h, int64_t d, Vec out[kVectors]) {
  for (int t0 = 0; t0 < kGroup; t0 += kTargets) {
    Vec acc[kVectors][kTargets];
#pragma GCC unroll 12
    for (int t = 0; t < kTargets; ++t)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[v][t] = Vec::broadcast(h + t0 + t);
    for (int64_t k = 0; k < d; ++k) {
      Vec xs[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) xs[v] = Vec::load(x + k * kTile + v * Vec::kWidth);
#pragma GCC unroll 12
      for (int t = 0; t < kTargets; ++t) {
        const Vec ys = Vec::broadcast(y + k * kGroup + t0 + t);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) acc[v][t] = mul_add(xs[v], ys, acc[v][t]);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Vec best = acc[v][0];
#pragma GCC unroll 12
      for (int t = 1; t < kTargets; ++t) best = max(best, acc[v][t]);
      out[v] = t0 == 0 ? best : max(out[v], best);
    }
  }
}

static void filter(const float* x, const Panels& panels, int64_t first, int64_t last, TileState& state) {
  for (int64_t g = first; g < last; ++g) {
    const float* y = panels.y + g * panels.d * kGroup;
    const Vec alpha = Vec::broadcast(panels.alpha + g), beta = Vec::broadcast(panels.beta + g);
    for (int s = 0; s < kTile; s += kSpan) {
      Vec best[kVectors] = {};
      group_max(x + s, y, panels.h + g * kGroup, panels.d, best);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const int lane0 = s + v * Vec::kWidth;
        const Vec error = mul_add(beta, Vec::load(state.norm + lane0), alpha);
        // Not below, rather than at least: where |x| is infinite this is NaN, and the group must be scored again.
        uint32_t hits = ~below(add(best[v], error), Vec::load(state.floor + lane0)) & Vec::kAllLanes;
        if (hits == 0) continue;
        float maxima[Vec::kWidth], errors[Vec::kWidth];
        best[v].store(maxima);
        error.store(errors);
        for (; hits != 0; hits &= hits - 1) {
          const int l = __builtin_ctz(hits);
          state.shortlist(state, lane0 + l, int32_t(g), maxima[l] + errors[l], maxima[l] - errors[l]);
        }
      }
    }
  }
}

// ---- samples ----------------------------------------------------------------------------------------------------

static void to_source(Source source, const uint32_t* w, float* x) {
  if (source == Source::kUniform)
    for (int l = 0; l < kTile; ++l) x[l] = to_uniform(w[l]);
  else
    for (int l = 0; l < kTile; ++l) x[l] = to_normal(w[l]);
}

static void philox_tile(uint64_t key, int64_t index, int64_t block, uint32_t c[4][kTile]) {
  const uint32_t high = uint32_t(uint64_t(index) >> 32);  // the same for the whole tile: index is a multiple of kTile
  for (int l = 0; l < kTile; ++l) {
    c[0][l] = uint32_t(index) + l, c[1][l] = high;
    c[2][l] = uint32_t(block), c[3][l] = uint32_t(uint64_t(block) >> 32);
  }
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int r = 0; r < Philox::kRounds; ++r) {
    for (int l = 0; l < kTile; ++l) {
      const uint64_t p0 = uint64_t(Philox::kMul0) * c[0][l], p1 = uint64_t(Philox::kMul1) * c[2][l];
      const uint32_t n0 = uint32_t(p1 >> 32) ^ c[1][l] ^ k0, n2 = uint32_t(p0 >> 32) ^ c[3][l] ^ k1;
      c[0][l] = n0, c[1][l] = uint32_t(p1), c[2][l] = n2, c[3][l] = uint32_t(p0);
    }
    k0 += Philox::kKey0, k1 += Philox::kKey1;
  }
}

static void sample(const Stream& stream, const uint32_t* lanes, int64_t index, int64_t d, float* x) {
  if (stream.directions == nullptr) {
    alignas(64) uint32_t c[4][kTile];
    for (int64_t k = 0; k < d; ++k) {
      if (k % 4 == 0) philox_tile(stream.seed, index, k / 4, c);
      to_source(stream.source, c[k % 4], x + k * kTile);
    }
    return;
  }
  constexpr int kSobolBits = 30;  // the sequence has 2^30 points
  const int64_t run = index >> kSobolBits;
  for (int64_t k = 0; k < d; ++k) {
    uint32_t base = 0;  // Sobol is linear over bits: number of (index + lane) is that of index xor that of lane
    for (uint32_t rest = uint32_t(index & ((int64_t(1) << kSobolBits) - 1)); rest != 0; rest &= rest - 1)
      base ^= stream.directions[k * 32 + __builtin_ctz(rest)];
    const uint32_t seed = sobol_seed(stream.seed, k, run);
    alignas(64) uint32_t w[kTile];
    for (int l = 0; l < kTile; ++l) w[l] = owen_scramble_reversed(base ^ lanes[k * kTile + l], seed);
    to_source(stream.source, w, x + k * kTile);
  }
}

// ---- soft assignment --------------------------------------------------------------------------------------------

constexpr int64_t kChain = 32;  // coordinates summed before their sum joins the score: rounding errors stay short

template <class T>
static void scores(const T* x, const T* y, const T* h, int64_t count, int64_t d, T* out) {
  for (int64_t t = 0; t < count; ++t) {
    T score[kTile];
    for (int l = 0; l < kTile; ++l) score[l] = h[t];
    for (int64_t first = 0; first < d; first += kChain) {
      const int64_t last = first + kChain < d ? first + kChain : d;
      T sum[kTile] = {};
      for (int64_t k = first; k < last; ++k) {
        const T yk = y[t * d + k];
        for (int l = 0; l < kTile; ++l) sum[l] += x[k * kTile + l] * yk;
      }
      for (int l = 0; l < kTile; ++l) score[l] += sum[l];
    }
    for (int l = 0; l < kTile; ++l) out[t * kTile + l] = score[l];
  }
}

// exp by 2^k exp(r), |r| <= log(2)/2, and its Taylor series: degree 7 leaves 1e-8, degree 13 leaves 1e-17. For v <= 0;
// zero where the result would be no normal number.
static inline float exp_one(float w) {
  const float v = w < -87.0f ? -87.0f : w;
  const float k = __builtin_rintf(v * 1.44269504f);
  const float r = (v - k * 0.693359375f) + k * 2.12194440e-4f;  // log(2) in two parts, the first exact times k
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return w < -87.0f ? 0.0f : p * bits_to_float(uint32_t(int32_t(k) + 127) << 23);
}

static inline double exp_one(double w) {
  const double v = w < -708.0 ? -708.0 : w;
  const double k = __builtin_rint(v * 1.4426950408889634);
  const double r = (v - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  double p = 1.6059043836821613e-10;
  p = p * r + 2.08767569878681e-09;
  p = p * r + 2.505210838544172e-08;
  p = p * r + 2.7557319223985893e-07;
  p = p * r + 2.7557319223985893e-06;
  p = p * r + 2.48015873015873e-05;
  p = p * r + 1.984126984126984e-04;
  p = p * r + 1.388888888888889e-03;
  p = p * r + 8.333333333333333e-03;
  p = p * r + 4.1666666666666664e-02;
  p = p * r + 1.6666666666666666e-01;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const uint64_t bits = uint64_t(int64_t(k) + 1023) << 52;
  double scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return w < -708.0 ? 0.0 : p * scale;
}

template <class T>
static void exp_rows(T* v, const T* shift, T scale, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i)
    for (int l = 0; l < kTile; ++l) v[i * kTile + l] = exp_one((v[i * kTile + l] - shift[l]) * scale);
}
