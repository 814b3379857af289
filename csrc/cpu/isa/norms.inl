// Squared norms of the samples of a tile, for each instruction set: a plain loop over lanes.

static void norms(const float* x, int64_t d, double* squares) {
  double sum[kTile] = {};
  for (int64_t k = 0; k < d; ++k)
    for (int l = 0; l < kTile; ++l) sum[l] += double(x[k * kTile + l]) * double(x[k * kTile + l]);
  for (int l = 0; l < kTile; ++l) squares[l] = sum[l];
}
