// Packs a group of targets, for each instruction set: plain loops over the targets, which are its lanes. A file
// includes it after it has defined kGroup in its own namespace.

// raw is (d, kMaxGroup), anything finite past the last target; y (d, kGroup); tiles (steps, kGroup, kDepth), or null.
static void pack(const double* raw, const double* centre, double scale, int64_t d, float* y, uint16_t* tiles,
                 PackedNorms& norms) {
  PackedNorms sum{};
  for (int64_t c = 0; c < d; ++c) {
    float rounded[kMaxGroup], coarse[kMaxGroup];
    for (int t = 0; t < kMaxGroup; ++t) {
      const double v = raw[c * kMaxGroup + t], centred = (v - centre[c]) * scale, original = v * scale;
      const double slack = 2 * 0x1p-53 * __builtin_fabs(centred) + 0x1p-126;
      rounded[t] = float(centred);
      coarse[t] = from_bfloat16(to_bfloat16(rounded[t]));
      const double residual = __builtin_fabs(centred - double(rounded[t])) + slack;
      const double coarse_residual = __builtin_fabs(centred - double(coarse[t])) + slack;
      sum.y[t] += double(rounded[t]) * double(rounded[t]);
      sum.residual[t] += residual * residual;
      sum.original[t] += original * original;
      sum.coarse[t] += double(coarse[t]) * double(coarse[t]);
      sum.coarse_residual[t] += coarse_residual * coarse_residual;
    }
    for (int t = 0; t < kGroup; ++t) y[c * kGroup + t] = rounded[t];
    if (tiles == nullptr) continue;
    uint16_t* column = tiles + c / kDepth * kGroup * kDepth + c % kDepth;
    for (int t = 0; t < kGroup; ++t) column[t * kDepth] = to_bfloat16(coarse[t]);
  }
  norms = sum;
}
