// Samples as functions of (seed, index): Philox for random numbers, Owen-scrambled Sobol for quasi-random ones.
// Only correctly rounded operations are used, so that every instruction set and every device makes the same bits.
#pragma once

#include <cmath>
#include <cstring>

#include "params.h"

namespace otgen {

// Philox-4x32-10: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
struct Philox {
  static constexpr uint32_t kMul0 = 0xD2511F53u, kMul1 = 0xCD9E8D57u;  // multipliers of the paper
  static constexpr uint32_t kKey0 = 0x9E3779B9u, kKey1 = 0xBB67AE85u;  // Weyl increments of the key
  static constexpr int kRounds = 10;
};

OTGEN_HD void philox(uint32_t c[4], uint64_t key) {
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int r = 0; r < Philox::kRounds; ++r) {
    const uint64_t p0 = uint64_t(Philox::kMul0) * c[0], p1 = uint64_t(Philox::kMul1) * c[2];
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c[1] ^ k0, n2 = uint32_t(p0 >> 32) ^ c[3] ^ k1;
    c[0] = n0, c[1] = uint32_t(p1), c[2] = n2, c[3] = uint32_t(p0);
    k0 += Philox::kKey0, k1 += Philox::kKey1;
  }
}

// The scramble of dimension k; a new one for each run of 2^30 points, after which the Sobol sequence repeats.
OTGEN_HD uint32_t sobol_seed(uint64_t seed, int64_t k, int64_t run) {
  uint32_t c[4] = {uint32_t(k), uint32_t(run), uint32_t(uint64_t(run) >> 32),
                   0x536F626Fu};  // apart from Philox streams
  philox(c, seed);
  return c[0];
}

OTGEN_HD uint32_t reverse_bits(uint32_t v) {
  v = (v >> 16) | (v << 16);
  v = ((v >> 8) & 0x00FF00FFu) | ((v & 0x00FF00FFu) << 8);
  v = ((v >> 4) & 0x0F0F0F0Fu) | ((v & 0x0F0F0F0Fu) << 4);
  v = ((v >> 2) & 0x33333333u) | ((v & 0x33333333u) << 2);
  return ((v >> 1) & 0x55555555u) | ((v & 0x55555555u) << 1);
}

// Owen scrambling by a hash of bit-reversed numbers: Burley, Practical hash-based Owen scrambling (JCGT 9(4), 2020);
// constants after Vegdahl's search for a hash closer to the full tree.
OTGEN_HD uint32_t owen_scramble_reversed(uint32_t v, uint32_t seed) {
  v ^= v * 0x3D20ADEAu;
  v += seed;
  v *= (seed >> 16) | 1u;
  v ^= v * 0x05526C56u;
  v ^= v * 0x53A22864u;
  return reverse_bits(v);
}

// The centre of one of 2^23 equal parts of (0, 1): the finest grid whose centres float32 holds exactly.
OTGEN_HD float to_uniform(uint32_t w) { return float(int32_t((w >> 9) * 2 + 1)) * 5.9604644775390625e-08f; }

OTGEN_HD float bits_to_float(uint32_t b) {
  float f;
  std::memcpy(&f, &b, sizeof f);
  return f;
}

OTGEN_HD uint32_t float_to_bits(float f) {
  uint32_t b;
  std::memcpy(&b, &f, sizeof b);
  return b;
}

// Natural logarithm of a normal number, to about 1e-7 (polynomial of Cephes' logf).
OTGEN_HD float log_normal_range(float v) {
  const uint32_t shifted = float_to_bits(v) - 0x3F3504F3u;  // puts the mantissa into [sqrt(1/2), sqrt(2))
  const int32_t e = int32_t(shifted) >> 23;
  const float f = bits_to_float((shifted & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const float f2 = f * f;
  return float(e) * 0.693147180559945f + (f - 0.5f * f2 + f * f2 * p);
}

// Sample i of a stream is image number image_of(i) of that of this number among the random or Sobol ones.
OTGEN_HD int64_t number_of(const Stream& stream, int64_t i) { return i / (stream.images * kTurn) * kTurn + i % kTurn; }

OTGEN_HD int image_of(const Stream& stream, int64_t i) { return int(i / kTurn % stream.images); }

// Whether an image has coordinate k on the other side of its source's middle. The last bit of `image` speaks for all
// coordinates, the others for pairs of them by the bits of the pair's number: a row of a Hadamard matrix, or of its
// negative. Number 0 is the sample itself.
OTGEN_HD bool is_reflected(int image, int64_t k) {
  uint32_t bits = uint32_t(image) & uint32_t(k | 1);
  static_assert(kMostImages <= 16, "four bits");
  bits ^= bits >> 2, bits ^= bits >> 1;
  return (bits & 1u) != 0;
}

// A coordinate on the other side of the middle; exact, for uniform numbers are whole multiples of 2^-24.
OTGEN_HD float reflected(Source source, float x) { return source == Source::kUniform ? 1.0f - x : -x; }

// Standard normal by inversion, symmetric, to 6.3 standard deviations and a relative error of 4e-7: the inverse error
// function of Giles, Approximating the erfinv function (GPU Computing Gems, 2011), single precision. Its polynomial for
// the tail ends at 5.4 standard deviations; the one here is fitted to all of sqrt(5) <= sqrt(v) <= 4.64 in his manner.
OTGEN_HD float to_normal(uint32_t w) {
  const int32_t low = int32_t(w & 0x7FFFFFFFu), high = 0x7FFFFFFF - low;
  const float q = (float(low) + 0.5f) * 4.656612873077393e-10f;   // 1 - t, exact near 0
  const float t = (float(high) + 0.5f) * 4.656612873077393e-10f;  // erf of the answer
  const float v = -log_normal_range(q * (1.0f + t));
  const float a = v - 2.5f;
  float p = 2.81022636e-08f;
  p = p * a + 3.43273939e-07f;
  p = p * a - 3.5233877e-06f;
  p = p * a - 4.39150654e-06f;
  p = p * a + 2.1858087e-04f;
  p = p * a - 1.25372503e-03f;
  p = p * a - 4.17768164e-03f;
  p = p * a + 2.46640727e-01f;
  p = p * a + 1.50140941f;
  const float b = sqrtf(v) - 3.0f;
  float r = 4.52627674e-05f;
  r = r * b - 1.80037064e-04f;
  r = r * b - 1.02829063e-05f;
  r = r * b + 1.31603189e-03f;
  r = r * b - 3.59068979e-03f;
  r = r * b + 5.75979299e-03f;
  r = r * b - 7.6435795e-03f;
  r = r * b + 9.43461743e-03f;
  r = r * b + 1.00167539f;
  r = r * b + 2.83297705f;
  const float z = 1.4142135623730951f * t * (v < 5.0f ? p : r);
  return (w >> 31) ? z : -z;
}

}  // namespace otgen
