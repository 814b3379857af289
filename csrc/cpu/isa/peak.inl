// The processor's limit, for each instruction set: multiply-adds on registers and nothing else. A file includes it
// after it has defined, in its own namespace,
//   Vec   a vector of floats: kWidth, broadcast, store; mul_add

// Floating-point operations that it did.
static int64_t busy(int64_t rounds) {
  constexpr int kSums = 12;  // enough to hide the latency of one
  const float one = 1.0f, small = 1e-9f;
  const Vec a = Vec::broadcast(&one), b = Vec::broadcast(&small);
  Vec sums[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sums[i] = b;
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = mul_add(a, b, sums[i]);
  volatile float keep[Vec::kWidth];  // or nothing would be done
  float lanes[Vec::kWidth];
  for (int i = 0; i < kSums; ++i) {
    sums[i].store(lanes);
    for (int t = 0; t < Vec::kWidth; ++t) keep[t] = lanes[t];
  }
  return rounds * 2 * kSums * Vec::kWidth;
}
