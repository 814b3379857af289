// rounding: the matrix unit's own sums, for a test of what products.h takes for granted about them.
#include "cuda.h"
#include "filter.h"

namespace otgen {
namespace {

constexpr int kGroupThreads = 4 * kWarp;

// Where a lane finds its four of the (16, 8) numbers of a problem's c.
OTGEN_DEVICE int place_of(int i) { return (lane_index() / 4 + i / 2 * 8) * 8 + lane_index() % 4 * 2 + i % 2; }

// Reads the fragments as device.h describes them; one warp a problem.
OTGEN_KERNEL(kWarp)
rounding_kernel(RoundingParams p) {
  const int g = lane_index() / 4, q = lane_index() % 4;
  const uint16_t* a = p.a + block_index() * 16 * p.k;
  const uint16_t* b = p.b + block_index() * 8 * p.k;
  float* c = p.c + block_index() * 16 * 8;
  float s[4] = {c[place_of(0)], c[place_of(1)], c[place_of(2)], c[place_of(3)]};
  const auto pair = [&](const uint16_t* v, int64_t row, int64_t k) {
    return uint32_t(v[row * p.k + k]) | uint32_t(v[row * p.k + k + 1]) << 16;
  };
  for (int64_t k = 2 * q; k < p.k; k += 16) {
    const uint32_t x[4] = {pair(a, g, k), pair(a, g + 8, k), pair(a, g, k + 8), pair(a, g + 8, k + 8)};
    const uint32_t y[2] = {pair(b, g, k), pair(b, g, k + 8)};
    multiply_bfloat16(s[0], s[1], s[2], s[3], x, y);
  }
  for (int i = 0; i < 4; ++i) c[place_of(i)] = s[i];
}

struct GroupMemory {
  uint16_t a[64 * kGroupDepth], b[kTileRows * kGroupDepth];
};

// Likewise with begin_product, whose larger product holds the problem's in its corner.
OTGEN_KERNEL(kGroupThreads)
group_rounding_kernel(RoundingParams p) {
#if OTGEN_WARP_GROUPS
  GroupMemory& memory = shared<GroupMemory>();
  const uint16_t* a = p.a + block_index() * 16 * p.k;
  const uint16_t* b = p.b + block_index() * 8 * p.k;
  float* c = p.c + block_index() * 16 * 8;
  float s[kPairs][kGroup] = {};
  if (warp_index() == 0)
    for (int i = 0; i < 4; ++i) s[i / 2][i % 2] = c[place_of(i)];
  for (int64_t first = 0; first < p.k; first += kGroupDepth) {
    barrier();
    for (int i = thread_index(); i < kTileRows * kGroupDepth; i += kGroupThreads) {
      const int r = i / kGroupDepth, at = i % kGroupDepth, place = group_place(r, at);
      const bool there = first + at < p.k;
      if (r < 64) memory.a[place] = there && r < 16 ? a[r * p.k + first + at] : uint16_t(0);
      memory.b[place] = there && r < 8 ? b[r * p.k + first + at] : uint16_t(0);
    }
    publish();
    barrier();
    begin_product(s, memory.a, memory.b, true);
    wait_for_product(s);
  }
  if (warp_index() == 0)
    for (int i = 0; i < 4; ++i) c[place_of(i)] = s[i / 2][i % 2];
#endif
}

}  // namespace

void rounding_cuda(const RoundingParams& p) {
  const OnDevice device(p.run);
  if (!p.groups) return launch("rounding", rounding_kernel, p.n, kWarp, 0, p.run, p);
  need_warpgroups(p.run);
  launch("rounding", group_rounding_kernel, p.n, kGroupThreads, sizeof(GroupMemory), p.run, p);
}

}  // namespace otgen
