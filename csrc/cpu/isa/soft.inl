// Scores and exponentials of one tile for soft_assign, for each instruction set: plain loops over lanes.

constexpr int64_t kChain = 32;  // coordinates summed before their sum joins the score: rounding errors stay short

// What each addition to the score lost joins the next one (Kahan); in many dimensions it would be most of the error.

template <class T>
static void scores(const T* x, const T* y, const T* h, int64_t count, int64_t d, T* out) {
  for (int64_t t = 0; t < count; ++t) {
    T score[kTile], lost[kTile] = {};
    for (int l = 0; l < kTile; ++l) score[l] = h[t];
    for (int64_t first = 0; first < d; first += kChain) {
      const int64_t last = first + kChain < d ? first + kChain : d;
      T sum[kTile] = {};
      for (int64_t k = first; k < last; ++k) {
        const T yk = y[t * d + k];
        for (int l = 0; l < kTile; ++l) sum[l] += x[k * kTile + l] * yk;
      }
      for (int l = 0; l < kTile; ++l) {
        const T more = sum[l] + lost[l], before = score[l];
        score[l] = before + more;
        lost[l] = more - (score[l] - before);
      }
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
