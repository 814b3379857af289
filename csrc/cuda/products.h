// The ways in which the filters multiply samples with targets.
//
// A tile is 128 samples or 128 targets; chunks of a tile, `depth` coordinates each, lie in memory in the order in which
// lanes read them. In the kernel for many dimensions (filter.cu) a block of 8 warps takes 128 samples and 128 targets,
// and a lane holds the scores of four pairs of a sample and a group of 16 consecutive targets: where the matrix unit
// leaves them, if targets are dealt to its columns accordingly. `row(i)` and `group(i)` say which pair is number i.
#pragma once

#include <algorithm>

#include "device.h"
#include "search.h"

namespace otgen {

constexpr int kTileRows = 128;  // samples of a tile, targets of a tile
constexpr int kGroup = 16;      // targets of a group, whose scores with a sample one lane holds
constexpr int kPairs = 4;       // pairs of a sample and a group that a lane holds
constexpr int kLowDims = 16;    // few dimensions: float32 then has a kernel of its own (low.cu)

// How warps share a tile: warp w has samples 32 (w / 2) to 32 (w / 2) + 31 and 64 targets from 64 (w % 2) on; each lane
// four samples, each 8 after the other, and one group.
struct ByWarps {
  OTGEN_DEVICE_MEMBER static int warp_row() { return warp_index() / 2 * 32; }
  OTGEN_DEVICE_MEMBER static int warp_column() { return warp_index() % 2 * 64; }
  OTGEN_DEVICE_MEMBER static int row(int i) { return warp_row() + i * 8 + lane_index() / 4; }
  OTGEN_DEVICE_MEMBER static int group(int) { return warp_index() % 2 * 4 + lane_index() % 4; }
};

// Float32 as it is.
struct Float32 {
  using Word = float;

  // With u = 2^-24: the relative error of a sum of d fused products and h, and 8 for what is done with it.
  static double chain(int64_t d) { return double(d + 8) * 0x1p-24; }

  OTGEN_DEVICE_MEMBER static Word round(float v) { return v; }
  OTGEN_DEVICE_MEMBER static float value(Word w) { return w; }
};

// Float32 on the ordinary units in few dimensions: all coordinates are one chunk, those of a target lie together.
struct LowProduct : Float32 {
  static int depth(int64_t d) { return d <= 2 ? 2 : d <= 4 ? 4 : d <= 8 ? 8 : kLowDims; }

  OTGEN_DEVICE_MEMBER static int sample_place(int r, int c, int) { return c * kTileRows + r; }
  OTGEN_DEVICE_MEMBER static int target_place(int t, int c, int depth) { return t * depth + c; }
};

// Float32 on the ordinary units, one fused multiply-add a coordinate. What a lane reads at once, 4 samples or a quarter
// of its targets, lies together, and beside what its neighbours read: no two words of a bank.
struct Float32Product : Float32, ByWarps {
  static int depth(int64_t) { return 32; }

  OTGEN_DEVICE_MEMBER static int sample_place(int r, int c, int) {
    return c * kTileRows + r / 32 * 32 + r % 8 * 4 + r % 32 / 8;
  }
  OTGEN_DEVICE_MEMBER static int target_place(int t, int c, int) {
    return c * kTileRows + t / 64 * 64 + t % 16 / 4 * 16 + t % 64 / 16 * 4 + t % 4;
  }

  OTGEN_DEVICE_MEMBER static void multiply(const Word* x, const Word* y, int, int used, float (&s)[kPairs][kGroup]) {
    x += warp_row() + lane_index() / 4 * kPairs;
    y += warp_column() + lane_index() % 4 * 4;
    for (int c = 0; c < used; ++c) {
      float a[kPairs], b[kGroup];
      load_16(x + c * kTileRows, a);
#pragma unroll
      for (int t = 0; t < kGroup; t += 4) load_16(y + c * kTileRows + t * 4, b + t);
#pragma unroll
      for (int i = 0; i < kPairs; ++i)
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
struct Bfloat16 {
  using Word = uint16_t;
  static constexpr int kStep = 16;
  static constexpr double kMargin = 4;

  static int depth(int64_t d) { return int(std::min<int64_t>(4, ceil_div(d, kStep))) * kStep; }
  static double chain(int64_t d) { return kMargin * 18 * double(ceil_div(d, kStep)) * 0x1p-23 + 8 * 0x1p-24; }

  // Nearest, ties to even; infinite and not-a-number stay what they are or become infinite.
  OTGEN_DEVICE_MEMBER static Word round(float v) {
    const uint32_t bits = uint32_t(float_as_bits(v));
    return Word((bits + ((bits & 0x7F800000u) == 0x7F800000u ? 0u : 0x7FFFu + (bits >> 16 & 1u))) >> 16);
  }
  OTGEN_DEVICE_MEMBER static float value(Word w) { return bits_as_float(int(uint32_t(w) << 16)); }
};

// With mma.sync (multiply_bfloat16 in device.h), which every GPU from sm_80 on has.
struct Bfloat16Product : Bfloat16, ByWarps {
  // The fragments of multiply_bfloat16 (device.h), 16 bytes a lane: (r / 16, c / 16, lane, register, half).
  OTGEN_DEVICE_MEMBER static int sample_place(int r, int c, int depth) {
    const int g = r % 8, q = c % 8 / 2, part = r % 16 / 8 + c % 16 / 8 * 2;
    return (((r / 16 * (depth / kStep) + c / kStep) * kWarp + g * 4 + q) * 4 + part) * 2 + c % 2;
  }
  // Likewise of two multiplications: (t / 64, c / 16, pair of multiplications, lane, one of them, register, half).
  // Target t % 16 = 2 n + e of group t / 16 % 4 = q belongs to column 2 q + e of multiplication n.
  OTGEN_DEVICE_MEMBER static int target_place(int t, int c, int depth) {
    const int n = t % 16 / 2, column = t / 16 % 4 * 2 + t % 2, q = c % 8 / 2;
    const int block = (t / 64 * (depth / kStep) + c / kStep) * 4 + n / 2;
    return ((block * kWarp + column * 4 + q) * 4 + n % 2 * 2 + c % 16 / 8) * 2 + c % 2;
  }

  OTGEN_DEVICE_MEMBER static void multiply(const Word* x, const Word* y, int depth, int used,
                                           float (&s)[kPairs][kGroup]) {
    const int steps = depth / kStep, used_steps = (used + kStep - 1) / kStep;
    const uint32_t* samples =
        reinterpret_cast<const uint32_t*>(x) + (warp_row() / 16 * steps * kWarp + lane_index()) * 4;
    const uint32_t* targets =
        reinterpret_cast<const uint32_t*>(y) + (warp_column() / 64 * steps * 4 * kWarp + lane_index()) * 4;
    warp_barrier();  // the instruction wants the whole warp
    for (int step = 0; step < used_steps; ++step) {
      uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) load_16(samples + (i * steps + step) * kWarp * 4, a[i]);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t b[4];
        load_16(targets + (step * 4 + pair) * kWarp * 4, b);
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

// With wgmma (begin_product in device.h), which only sm_90a has: 4 warps take 64 samples and the 128 targets, and read
// both where they lie (wgmma.cu). It is assumed to round no worse than mma.sync; the test on the hardware is for both.
// Heights are added to the finished sums: one more rounding, among the 8 of `chain`.
struct WgmmaProduct : Bfloat16 {
  static int depth(int64_t) { return kGroupDepth; }
  static double chain(int64_t d) { return Bfloat16::chain(ceil_div(d, kGroupDepth) * kGroupDepth); }

  // Of the 64 samples.
  OTGEN_DEVICE_MEMBER static int row(int i) { return warp_index() % 4 * 16 + lane_index() / 4 + i % 2 * 8; }
  OTGEN_DEVICE_MEMBER static int group(int i) { return lane_index() % 4 + i / 2 * 4; }

  OTGEN_DEVICE_MEMBER static int sample_place(int r, int c, int) { return group_place(r, c); }
  // The column of the product at which begin_product has target t % 16 of group t / 16 for the group's lane.
  OTGEN_DEVICE_MEMBER static int target_place(int t, int c, int) {
    const int g = t / kGroup, pair = t % kGroup / 2;
    return group_place(8 * (pair + 8 * (g / 4)) + 2 * (g % 4) + t % 2, c);
  }
};

// Calls f with the product that serves a filter in d dimensions.
template <class F>
void with_product(Filter filter, int64_t d, F&& f) {
  if (filter == Filter::kBfloat16)
    f(Bfloat16Product{});
  else if (filter == Filter::kWgmma)
    f(WgmmaProduct{});
  else if (d <= kLowDims)
    f(LowProduct{});
  else
    f(Float32Product{});
}

// Of a row as the product P reads it.
template <class P>
int64_t row_bytes(int64_t d) {
  return ceil_div(d, P::depth(d)) * P::depth(d) * int64_t(sizeof(typename P::Word));
}

}  // namespace otgen
