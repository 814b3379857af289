// sample: the very samples that measure makes and does not keep; one thread a coordinate.
#include "../random.h"
#include "cuda.h"
#include "sample.h"

namespace otgen {
namespace {

constexpr int kThreads = 256;
constexpr int kSobolBits = 30;  // the sequence has 2^30 points

// Coordinate k of the sample in some row, from a random word.
OTGEN_DEVICE float coordinate(const SampleParams& p, int64_t row, int64_t k, uint32_t w) {
  const float x = p.stream.source == Source::kUniform ? to_uniform(w) : to_normal(w);
  return is_reflected(image_of(p.stream, p.stream.first + row), k) ? reflected(p.stream.source, x) : x;
}

// Four coordinates come from one block of random numbers.
OTGEN_KERNEL(kThreads)
random_kernel(SampleParams p) {
  const int64_t blocks = ceil_div(p.d, 4), i = block_index() * kThreads + thread_index();
  const int64_t row = i / blocks, block = i % blocks;
  if (row >= p.n) return;
  const uint64_t index = uint64_t(number_of(p.stream, p.stream.first + row));
  uint32_t c[4] = {uint32_t(index), uint32_t(index >> 32), uint32_t(block), uint32_t(uint64_t(block) >> 32)};
  philox(c, p.stream.seed);
#pragma unroll
  for (int t = 0; t < 4; ++t)
    if (block * 4 + t < p.d) p.x[row * p.d + block * 4 + t] = coordinate(p, row, block * 4 + t, c[t]);
}

OTGEN_KERNEL(kThreads)
sobol_kernel(SampleParams p) {
  const int64_t i = block_index() * kThreads + thread_index(), row = i / p.d, k = i % p.d;
  if (row >= p.n) return;
  const int64_t index = number_of(p.stream, p.stream.first + row);
  const uint32_t* directions = p.stream.directions + k * 32;
  uint32_t w = 0;
  for (int b = 0; b < kSobolBits; ++b)
    if (index >> b & 1) w ^= directions[b];
  w = owen_scramble_reversed(w, sobol_seed(p.stream.seed, k, index >> kSobolBits));
  p.x[i] = coordinate(p, row, k, w);
}

}  // namespace

void make_samples(const SampleParams& p) {
  if (p.stream.directions == nullptr)
    launch("sample", random_kernel, ceil_div(p.n * ceil_div(p.d, 4), kThreads), kThreads, 0, p.run, p);
  else
    launch("sample", sobol_kernel, ceil_div(p.n * p.d, kThreads), kThreads, 0, p.run, p);
}

void sample_cuda(const SampleParams& p) {
  const OnDevice device(p.run);
  constexpr int64_t kMost = int64_t(1) << 38;  // numbers of one launch
  const int64_t slab = std::max<int64_t>(1, kMost / p.d);
  for (int64_t first = 0; first < p.n; first += slab) {
    SampleParams part = p;
    part.stream.first += first, part.x += first * p.d;
    part.n = std::min(slab, p.n - first);
    make_samples(part);
  }
}

}  // namespace otgen
