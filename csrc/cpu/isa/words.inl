// Samples and targets in whole numbers; a file includes it after it has defined kGroup. V says which numbers: kProducts
// of them in a word, kWhole, and kZero, what is added to those of samples.

template <class V>
static void prepare_whole(const float* x, const float* middle, float step, int64_t d, void* out, double* squares,
                          double* residual_squares) {
  constexpr int kPerWord = V::kProducts, kBits = 32 / kPerWord;
  uint32_t* words = static_cast<uint32_t*>(out);
  const float inverse = 1.0f / step, most = float(most_of(V::kWhole));
  const int32_t zero = V::kZero;
  double norm[kTile] = {}, residual[kTile] = {};
  for (int64_t c = 0; c < d; ++c)
    for (int l = 0; l < kTile; ++l) {
      const float v = x[c * kTile + l] - middle[c];
      norm[l] += double(v) * double(v);
    }
  float scale[kTile];  // samples with too large a norm for shorts come nearer
  for (int l = 0; l < kTile; ++l) {
    const double length = __builtin_sqrt(norm[l]);
    const bool far = V::kWhole == Whole::kShorts && length > double(step) * double(most);
    scale[l] = far ? float(double(most) / length) : inverse;
  }
  for (int64_t c = 0; c < d; c += kPerWord, words += kTile) {
    uint32_t word[kTile] = {};
    for (int j = 0; j < kPerWord && c + j < d; ++j)
      for (int l = 0; l < kTile; ++l) {
        const float v = x[(c + j) * kTile + l] - middle[c + j], steps = v * scale[l];
        const float below = steps < most ? steps : most;  // most where it is not a number
        const float q = __builtin_rintf(below > -most ? below : -most), r = v - q * step;
        residual[l] += double(r) * double(r);
        word[l] |= (uint32_t(int32_t(q) + zero) & ((1u << kBits) - 1)) << (kBits * j);
      }
    std::memcpy(words, word, sizeof word);
  }
  std::memcpy(squares, norm, sizeof norm);
  std::memcpy(residual_squares, residual, sizeof residual);
}

template <class V>
static float pack_whole(const double* raw, const double* centre, double scale, int64_t d, int count, double step,
                        double least, int32_t* words, int32_t* sums, PackedNorms& norms) {
  constexpr int kPerWord = V::kProducts, kBits = 32 / kPerWord;
  constexpr double kMost = most_of(V::kWhole);
  double size[kMaxGroup] = {};  // the largest coordinate, for bytes; the norm's square, for shorts
  for (int64_t c = 0; c < d; ++c)
    for (int t = 0; t < kMaxGroup; ++t) {
      const double v = __builtin_fabs((raw[c * kMaxGroup + t] - centre[c]) * scale);
      size[t] = V::kWhole == Whole::kShorts ? size[t] + v * v : size[t] < v ? v : size[t];
    }
  double largest = 0;
  for (int t = 0; t < count; ++t) largest = largest < size[t] ? size[t] : largest;
  if (V::kWhole == Whole::kShorts) largest = __builtin_sqrt(largest);
  const double wanted = step * largest / kMost;
  const float unit = float((wanted < least ? least : wanted) * (1 + 0x1p-22));  // not below it after rounding
  const double length = double(unit) / step, inverse = 1 / length;
  double square[kMaxGroup] = {}, residual[kMaxGroup] = {};
  int32_t sum[kMaxGroup] = {};
  for (int64_t c = 0; c < d; c += kPerWord, words += kGroup) {
    uint32_t word[kMaxGroup] = {};
    for (int j = 0; j < kPerWord && c + j < d; ++j)
      for (int t = 0; t < kMaxGroup; ++t) {
        const double centred = (raw[(c + j) * kMaxGroup + t] - centre[c + j]) * scale;
        const double exact = t < count ? centred * inverse : 0.0;
        const double low = exact < kMost ? exact : kMost;  // also what is not a number, where targets are too far apart
        const double q = __builtin_rint(low > -kMost ? low : -kMost);
        const double left = __builtin_fabs(centred - q * length) + 4 * 0x1p-53 * __builtin_fabs(centred) + 0x1p-126;
        square[t] += q * length * (q * length);
        residual[t] += left * left;
        sum[t] += int32_t(q);
        word[t] |= (uint32_t(int32_t(q)) & ((1u << kBits) - 1)) << (kBits * j);
      }
    std::memcpy(words, word, kGroup * sizeof(int32_t));
  }
  std::memcpy(norms.coarse, square, sizeof square);
  std::memcpy(norms.coarse_residual, residual, sizeof residual);
  std::memcpy(sums, sum, sizeof sum);
  return unit;
}
