// The two ways in which the filter multiplies a tile of samples with a tile of targets.
//
// A block of 8 warps takes 128 samples and 128 targets, each warp (w / 2, w % 2) of them 32 samples and 64 targets.
// Lane l holds the scores of samples l / 4, l / 4 + 8, + 16, + 24 of its warp with 16 consecutive targets, those of
// group l % 4 of the warp: where the matrix unit leaves them, if targets are dealt to its columns accordingly. Chunks
// of kDepth coordinates lie in memory in the order in which lanes read them.
#pragma once

#include "device.h"

namespace otgen {

constexpr int kTileRows = 128;         // samples of a block, targets of a tile
constexpr int kGroup = 16;             // targets of a group, whose scores with a sample one lane holds
constexpr int kLaneRows = 4;           // samples of a lane
constexpr int kChunkBytes = 16 << 10;  // of either tile

OTGEN_DEVICE int warp_row() { return warp_index() / 2 * 32; }
OTGEN_DEVICE int warp_column() { return warp_index() % 2 * 64; }
OTGEN_DEVICE int lane_row(int i) { return warp_row() + i * 8 + lane_index() / 4; }
OTGEN_DEVICE int lane_column() { return warp_column() + lane_index() % 4 * kGroup; }

// Float32 on the ordinary units, one fused multiply-add a coordinate.
struct Float32Product {
  using Word = float;
  static constexpr int kDepth = 32;

  // With u = 2^-24: the relative error of a sum of d products and h, and 8 for what is done with it.
  static double chain(int64_t d) { return double(d + 8) * 0x1p-24; }

  OTGEN_DEVICE_MEMBER static Word round(float v) { return v; }
  OTGEN_DEVICE_MEMBER static float value(Word w) { return w; }
  OTGEN_DEVICE_MEMBER static int sample_place(int r, int c) { return c * kTileRows + r; }
  OTGEN_DEVICE_MEMBER static int target_place(int t, int c) { return c * kTileRows + t; }

  OTGEN_DEVICE_MEMBER static void multiply(const Word* x, const Word* y, int depth, float (&s)[kLaneRows][kGroup]) {
    for (int c = 0; c < depth; ++c) {
      float a[kLaneRows], b[kGroup];
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i) a[i] = x[c * kTileRows + lane_row(i)];
#pragma unroll
      for (int t = 0; t < kGroup; ++t) b[t] = y[c * kTileRows + lane_column() + t];
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i)
#pragma unroll
        for (int t = 0; t < kGroup; ++t) s[i][t] = fmaf(a[i], b[t], s[i][t]);
    }
  }
};

// Bfloat16 on the matrix unit, 16 coordinates an instruction.
//
// NVIDIA does not say how it rounds. Measured and modelled by others, products are exact, and an instruction cuts off
// its addends, the accumulator among them, somewhere below 2^-23 of the largest, and the sum to float32. With 17
// addends none larger than S = |h| + |x^||y^|, its error is then at most 18 * 2^-23 S. The bound takes four times that,
// which also covers a unit that takes 16 coordinates in two halves; bench/gpu_check.py tests it on the hardware.
struct Bfloat16Product {
  using Word = uint16_t;
  static constexpr int kDepth = 64;
  static constexpr int kStep = 16;
  static constexpr double kMargin = 4;

  static double chain(int64_t d) { return kMargin * 18 * double(ceil_div(d, kStep)) * 0x1p-23 + 8 * 0x1p-24; }

  // Nearest, ties to even; infinite and not-a-number stay what they are or become infinite.
  OTGEN_DEVICE_MEMBER static Word round(float v) {
    const uint32_t bits = uint32_t(float_as_bits(v));
    return Word((bits + ((bits & 0x7F800000u) == 0x7F800000u ? 0u : 0x7FFFu + (bits >> 16 & 1u))) >> 16);
  }
  OTGEN_DEVICE_MEMBER static float value(Word w) { return bits_as_float(int(uint32_t(w) << 16)); }

  // The fragments of multiply_bfloat16 (device.h), 16 bytes a lane: (r / 16, c / 16, lane, register, half).
  OTGEN_DEVICE_MEMBER static int sample_place(int r, int c) {
    const int g = r % 8, q = c % 8 / 2, part = r % 16 / 8 + c % 16 / 8 * 2;
    return (((r / 16 * (kDepth / kStep) + c / kStep) * kWarp + g * 4 + q) * 4 + part) * 2 + c % 2;
  }
  // Likewise of two multiplications: (t / 64, c / 16, pair of multiplications, lane, one of them, register, half).
  // Target t % 16 = 2 n + e of group t / 16 % 4 = q belongs to column 2 q + e of multiplication n.
  OTGEN_DEVICE_MEMBER static int target_place(int t, int c) {
    const int n = t % 16 / 2, column = t / 16 % 4 * 2 + t % 2, q = c % 8 / 2;
    const int block = (t / 64 * (kDepth / kStep) + c / kStep) * 4 + n / 2;
    return ((block * kWarp + column * 4 + q) * 4 + n % 2 * 2 + c % 16 / 8) * 2 + c % 2;
  }

  OTGEN_DEVICE_MEMBER static void multiply(const Word* x, const Word* y, int depth, float (&s)[kLaneRows][kGroup]) {
    const uint32_t* samples = reinterpret_cast<const uint32_t*>(x);
    const uint32_t* targets = reinterpret_cast<const uint32_t*>(y);
    for (int step = 0; step < depth; step += kStep) {
      uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        load_16(samples + (((warp_row() / 16 + i) * (kDepth / kStep) + step / kStep) * kWarp + lane_index()) * 4, a[i]);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t b[4];
        load_16(
            targets + (((warp_column() / 64 * (kDepth / kStep) + step / kStep) * 4 + pair) * kWarp + lane_index()) * 4,
            b);
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int n = 0; n < 2; ++n) {
            const int t = pair * 4 + n * 2;
            multiply_bfloat16(s[2 * i][t], s[2 * i][t + 1], s[2 * i + 1][t], s[2 * i + 1][t + 1], a[i], b + 2 * n);
          }
      }
    }
  }
};

}  // namespace otgen
