// rounding: the matrix unit's own sums, for a test of what products.h takes for granted about them.
#include "cuda.h"
#include "device.h"

namespace otgen {
namespace {

// Reads the fragments as device.h describes them; one warp a problem.
OTGEN_KERNEL(kWarp)
rounding_kernel(RoundingParams p) {
  const int g = lane_index() / 4, q = lane_index() % 4;
  const uint16_t* a = p.a + block_index() * 16 * p.k;
  const uint16_t* b = p.b + block_index() * 8 * p.k;
  float* c = p.c + block_index() * 16 * 8 + g * 8 + 2 * q;
  float s[4] = {c[0], c[1], c[64], c[65]};
  const auto pair = [&](const uint16_t* v, int64_t row, int64_t k) {
    return uint32_t(v[row * p.k + k]) | uint32_t(v[row * p.k + k + 1]) << 16;
  };
  for (int64_t k = 2 * q; k < p.k; k += 16) {
    const uint32_t x[4] = {pair(a, g, k), pair(a, g + 8, k), pair(a, g, k + 8), pair(a, g + 8, k + 8)};
    const uint32_t y[2] = {pair(b, g, k), pair(b, g, k + 8)};
    multiply_bfloat16(s[0], s[1], s[2], s[3], x, y);
  }
  c[0] = s[0], c[1] = s[1], c[64] = s[2], c[65] = s[3];
}

}  // namespace

void rounding_cuda(const RoundingParams& p) {
  const OnDevice device(p.run);
  launch("rounding", rounding_kernel, p.n, kWarp, 0, p.run, p);
}

}  // namespace otgen
