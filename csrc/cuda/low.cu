// The filtered search in few dimensions, in float32: a thread keeps four samples in registers and takes them through
// all targets, which lie in shared memory in the order in which every lane reads them.
//
// In d dimensions a score costs a thread d fused multiply-adds, the first of which begins with the height, and one
// maximum; a group of 16 scores for each of 4 samples share 4 d + 4 loads of 16 bytes, and some 70 instructions for
// bounds, comparisons and the loop. Compiled for sm_90, that is 4.2 instructions a score at d = 2, 6.4 at 4, 10.6 at 8
// and 19.1 at 16, so that 132 processors which start 128 of them a clock at 1.755 GHz (an H100) make at most 7.0e12,
// 4.6e12, 2.8e12 and 1.6e12 scores a second. Beyond d = 2, only the matrix unit can do 6e12.
#include <cmath>

#include "filter.h"
#include "shortlists.h"

namespace otgen {
namespace {

constexpr int kThreads = 128;
constexpr int kMine = 4;                      // samples of a thread
constexpr int kBlockRows = kThreads * kMine;  // and of a block
constexpr int kRoom = 8;                      // groups that a sample's shortlist has room for

template <int kDim>
struct Memory {
  float targets[2][kTileRows * kDim];
  float head[2][kHead];
  Shortlists<kBlockRows, kRoom> lists;
};

// The row, in its block, of this thread's sample number i: words of the samples lie a tile of 128 after the other.
OTGEN_DEVICE int my_row(int i) { return i * kTileRows + thread_index(); }

static_assert(kThreads == kTileRows, "thread t has the samples t of its tiles");

template <int kDim>
OTGEN_DEVICE void begin_copies(const Filtered& p, Memory<kDim>& memory, int64_t tile) {
  constexpr int kWords = kTileRows * kDim;
  const float* y = static_cast<const float*>(p.targets.words) + tile * kWords;
  for (int i = thread_index() * 4; i < kWords; i += kThreads * 4) copy_16(memory.targets[tile % 2] + i, y + i);
  if (thread_index() < kHead / 4)
    copy_16(memory.head[tile % 2] + thread_index() * 4, p.heads + tile * kHead + thread_index() * 4);
}

// Raises `top` to the largest score of each of this thread's samples with a group.
template <int kDim>
OTGEN_DEVICE void largest_of_group(const float* y, const float* head, int g, const float (&x)[kMine][kDim],
                                   float (&top)[kMine]) {
#pragma unroll
  for (int t = 0; t < kGroup; t += 4) {
    float start[4];
    load_16(head + height_place(g, t), start);
#pragma unroll
    for (int u = 0; u < 4; u += kDim < 4 ? 4 / kDim : 1) {
      constexpr int kTargets = kDim < 4 ? 4 / kDim : 1;  // which lie in the same 16 bytes
      float at[kTargets * kDim];
#pragma unroll
      for (int v = 0; v < kTargets * kDim; v += 4) load_16(y + (g * kGroup + t + u) * kDim + v, at + v);
#pragma unroll
      for (int w = 0; w < kTargets; ++w)
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          float s = start[u + w];
#pragma unroll
          for (int c = 0; c < kDim; ++c) s = fmaf(x[i][c], at[w * kDim + c], s);
          top[i] = fmaxf(top[i], s);
        }
    }
  }
}

// Goes through the lists of this warp that are full, or, with `all`, through all of them.
template <class L>
OTGEN_DEVICE_CALLED void go_through_mine(const Filtered& p, L& lists, bool all) {
#pragma unroll 1
  for (int i = 0; i < kMine; ++i) {
    uint32_t left = ballot(all || lists.count[my_row(i)] == kRoom);
    for (int l = 0; l < kWarp; ++l) {
      const int r = i * kTileRows + warp_index() * kWarp + l;
      const int64_t row = block_index() * kBlockRows + r;
      if ((left >> l & 1) != 0 && row < p.rows) go_through(p, lists, row, r, all, kRoom / 2);
    }
  }
}

template <int kDim>
OTGEN_KERNEL(kThreads, kDim > 8 ? 3 : 4)
low_kernel(OTGEN_CONSTANT Filtered p) {
  Memory<kDim>& memory = shared<Memory<kDim>>();
  auto& lists = memory.lists;
  const int64_t first = block_index() * kBlockRows;
  const int rows = at_most(p.rows - first, kBlockRows), groups = int(ceil_div(p.m, kGroup));
  begin_copies(p, memory, 0);

  // Of samples past the last one, nothing is noted: no number is below their floor but what is none itself.
  float x[kMine][kDim], norm[kMine], residual[kMine], best[kMine], floor[kMine];
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int64_t row = first + my_row(i);
    const bool there = my_row(i) < rows;
    const float* words = static_cast<const float*>(p.samples.words) + (first + i * kTileRows) * kDim + thread_index();
#pragma unroll
    for (int c = 0; c < kDim; ++c) x[i][c] = there ? words[c * kTileRows] : 0.0f;
    norm[i] = there ? p.samples.norm[row] : 0.0f, residual[i] = there ? p.samples.residual[row] : 0.0f;
    best[i] = -INFINITY, floor[i] = there ? -INFINITY : INFINITY;
    lists.clear(my_row(i));
  }

  for (int64_t tile = 0; tile < p.tiles; ++tile) {
    copy_wait();
    barrier();  // the tile is there, and nobody reads the other one any more
    if (tile + 1 < p.tiles) begin_copies(p, memory, tile + 1);
    const float *y = memory.targets[tile % 2], *head = memory.head[tile % 2], *bounds = head + kTileRows;
    for (int g = 0; g < kTileGroups; ++g) {
      float top[kMine] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
      largest_of_group<kDim>(y, head, g, x, top);
      const float alpha = bounds[g], beta = bounds[kTileGroups + g], gamma = bounds[2 * kTileGroups + g];
      bool full = false;
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        const float error = fmaf(gamma, residual[i], fmaf(beta, norm[i], alpha)), upper = top[i] + error;
        if (upper < floor[i]) continue;
        const int r = my_row(i), group = int(tile) * kTileGroups + g;
        if (r >= rows || group >= groups) continue;
        const int at = lists.count[r]++;
        lists.group[r][at] = group;
        lists.upper[r][at] = upper == upper ? upper : INFINITY;
        full = full || at + 1 == kRoom;
        const float lower = top[i] - error;
        if (p.k == 1 && lower > floor[i]) floor[i] = lower;
        if (p.k == 2 && lower > floor[i]) floor[i] = fminf(lower, best[i]), best[i] = fmaxf(lower, best[i]);
      }
      if (ballot(full) == 0) continue;
#pragma unroll
      for (int i = 0; i < kMine; ++i)
        if (p.k <= kTracked) lists.floor[my_row(i)] = to_ordered(floor[i]);
      warp_barrier();
      go_through_mine(p, lists, false);
#pragma unroll
      for (int i = 0; i < kMine; ++i)
        if (p.k > kTracked && my_row(i) < rows) floor[i] = from_ordered(lists.floor[my_row(i)]);
    }
  }
#pragma unroll
  for (int i = 0; i < kMine; ++i)
    if (p.k <= kTracked) lists.floor[my_row(i)] = to_ordered(floor[i]);
  warp_barrier();
  go_through_mine(p, lists, true);
}

template <int kDim>
void filter_in(const Filtered& p, const Run& run) {
  launch("filter", low_kernel<kDim>, ceil_div(p.rows, kBlockRows), kThreads, sizeof(Memory<kDim>), run, p);
}

}  // namespace

void filter_low(const Filtered& p, const Run& run) {
  if (p.depth == 2) return filter_in<2>(p, run);
  if (p.depth == 4) return filter_in<4>(p, run);
  if (p.depth == 8) return filter_in<8>(p, run);
  filter_in<kLowDims>(p, run);
}

}  // namespace otgen
