// The processor's limit, for each instruction set: multiply-adds on registers and nothing else. A file includes it
// after it has defined, in its own namespace,
//   Vec   a vector of floats: Lane, kWidth, kProducts, broadcast, store; mul_add

// Operations that it did, of V's kind.
template <class V>
static int64_t busy(int64_t rounds) {
  using Lane = typename V::Lane;
  constexpr int kSums = 12;  // enough to hide the latency of one
  const Lane one = Lane(1), small = Lane(1e-9);
  const V a = V::broadcast(&one), b = V::broadcast(&small);
  V sums[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sums[i] = b;
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = mul_add(a, b, sums[i]);
  [[maybe_unused]] volatile Lane keep[Vec::kWidth];  // or nothing would be done
  Lane lanes[Vec::kWidth];
  for (int i = 0; i < kSums; ++i) {
    sums[i].store(lanes);
    for (int t = 0; t < Vec::kWidth; ++t) keep[t] = lanes[t];
  }
  return rounds * 2 * kSums * Vec::kWidth * V::kProducts;
}
