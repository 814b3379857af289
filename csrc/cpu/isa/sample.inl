// Samples of one tile, for each instruction set: plain loops over lanes that the compiler turns into vectors.

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
