// The filtered search: a block takes 128 samples through all targets, a tile of 128 after the other. Float32 in few
// dimensions and wgmma have kernels of their own (low.cu, wgmma.cu).
#include <cmath>

#include "filter.h"
#include "shortlists.h"

namespace otgen {
namespace {

constexpr int kThreads = 256;  // 8 warps
constexpr int kEntries = 20;   // groups that a sample's shortlist has room for

static_assert(kEntries > kTileGroups, "room for a tile's groups");

struct Memory {
  float head[2][kHead];
  Shortlists<kTileRows, kEntries> lists;
  int full[2];  // in turns: some list has no room for another tile
  float norm[kTileRows], residual[kTileRows];
  // The largest lower bounds of a sample and the groups g, g + 8, ..., which one lane sees and nobody else reads.
  float best[kTileGroups][kTileRows], second[kTileGroups][kTileRows];
};

constexpr int64_t kMemoryBytes = (sizeof(Memory) + 127) / 128 * 128;  // chunks begin where a row of banks does

OTGEN_DEVICE void begin_copies(const Filtered& p, Memory& memory, char* x_chunks, char* y_chunks, int tile, int chunk,
                               int stage) {
  const int bytes = p.chunk_bytes;
  const char* y = static_cast<const char*>(p.targets.words) + (tile * p.chunks + chunk) * bytes;
  for (int i = thread_index() * 16; i < bytes; i += kThreads * 16) copy_16(y_chunks + stage * bytes + i, y + i);
  if (tile == 0 || !p.resident) {
    const char* x = static_cast<const char*>(p.samples.words) + (block_index() * p.chunks + chunk) * bytes;
    char* to = x_chunks + (p.resident ? chunk : stage) * bytes;
    for (int i = thread_index() * 16; i < bytes; i += kThreads * 16) copy_16(to + i, x + i);
  }
  if (chunk == 0 && thread_index() < kHead / 4)
    copy_16(memory.head[tile % 2] + thread_index() * 4, p.heads + tile * kHead + thread_index() * 4);
}

// Each warp sees to its share of the lists.
OTGEN_DEVICE void go_through_lists(const Filtered& p, Memory& memory, bool all) {
  constexpr int kShare = kTileRows / (kThreads / kWarp);
  for (int r = warp_index() * kShare; r < (warp_index() + 1) * kShare; ++r) {
    const int64_t row = block_index() * kTileRows + r;
    if (row >= p.rows) return;
    go_through(p, memory.lists, row, r, all, (kEntries - kTileGroups) / 2);
  }
}

// A block searches 128 samples among all targets. Two stages: while one chunk is multiplied, the next one is copied.
template <class P>
OTGEN_KERNEL(kThreads, 2)
filter_kernel(Filtered p) {
  using Word = typename P::Word;
  Memory& memory = shared<Memory>();
  auto& lists = memory.lists;
  char* y_chunks = reinterpret_cast<char*>(&memory) + kMemoryBytes;
  char* x_chunks = y_chunks + 2 * p.chunk_bytes;
  const int64_t first = block_index() * kTileRows;
  const int rows = at_most(p.rows - first, kTileRows), groups = int(ceil_div(p.m, kGroup));
  const int tiles = int(p.tiles), chunks = int(p.chunks);

  if (thread_index() < kTileRows) {
    const int64_t row = first + thread_index();
    memory.norm[thread_index()] = row < p.rows ? p.samples.norm[row] : 0.0f;
    memory.residual[thread_index()] = row < p.rows ? p.samples.residual[row] : 0.0f;
    lists.clear(thread_index());
  }
  if (thread_index() < 2) memory.full[thread_index()] = 0;
  for (int i = thread_index(); i < kTileGroups * kTileRows; i += kThreads)
    memory.best[i / kTileRows][i % kTileRows] = memory.second[i / kTileRows][i % kTileRows] = -INFINITY;

  float s[kPairs][kGroup];
  int tile = 0, chunk = 0;
  begin_copies(p, memory, x_chunks, y_chunks, 0, 0, 0);
  for (int stage = 0; tile < tiles; stage ^= 1) {
    copy_wait();
    barrier();  // the chunk is there, and nobody reads the other stage any more
    if (memory.full[stage ^ 1] != 0) {
      barrier();
      if (thread_index() == 0) memory.full[stage ^ 1] = 0;
      go_through_lists(p, memory, false);
      barrier();
    }
    const bool last = chunk + 1 == chunks;
    const int next_tile = last ? tile + 1 : tile, next_chunk = last ? 0 : chunk + 1;
    if (next_tile < tiles) begin_copies(p, memory, x_chunks, y_chunks, next_tile, next_chunk, stage ^ 1);

    const float* head = memory.head[tile % 2];
    if (chunk == 0)
#pragma unroll
      for (int i = 0; i < kPairs; ++i)
#pragma unroll
        for (int t = 0; t < kGroup; t += 4) load_16(head + height_place(P::group(i), t), s[i] + t);
    const int64_t left = p.d - int64_t(chunk) * p.depth;
    P::multiply(reinterpret_cast<const Word*>(x_chunks + (p.resident ? chunk : stage) * p.chunk_bytes),
                reinterpret_cast<const Word*>(y_chunks + stage * p.chunk_bytes), p.depth,
                int(left < p.depth ? left : p.depth), s);

    if (last) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int r = P::row(i), g = P::group(i);
        const int group = tile * kTileGroups + g;
        const float *alpha = head + kTileRows + g, *beta = alpha + kTileGroups, *gamma = beta + kTileGroups;
        float top = s[i][0];
#pragma unroll
        for (int t = 1; t < kGroup; ++t) top = fmaxf(top, s[i][t]);
        const float error = *alpha + *beta * memory.norm[r] + *gamma * memory.residual[r];
        const float upper = top + error, lower = top - error;
        if (group >= groups || r >= rows || upper < from_ordered(fresh(&lists.floor[r]))) continue;
        const int at = atomic_add(&lists.count[r], 1);
        lists.group[r][at] = group;
        lists.upper[r][at] = upper == upper ? upper : INFINITY;
        if (at + 1 > kEntries - kTileGroups) memory.full[stage] = 1;
        if (p.k > kTracked) continue;
        // The second largest that this lane has seen is not above the second largest of all.
        float &best = memory.best[g][r], &second = memory.second[g][r];
        if (lower > best)
          second = best, best = lower;
        else if (lower > second)
          second = lower;
        atomic_max(&lists.floor[r], to_ordered(p.k == 1 ? best : second));
      }
    }
    tile = next_tile, chunk = next_chunk;
  }
  barrier();
  go_through_lists(p, memory, true);
}

template <class P>
void filter_many(Filtered p, const Run& run) {
  const int64_t base = kMemoryBytes + 2 * p.chunk_bytes;
  p.resident = base + p.chunks * p.chunk_bytes <= shared_limit(run);
  launch("filter", filter_kernel<P>, ceil_div(p.rows, kTileRows), kThreads,
         size_t(base + (p.resident ? p.chunks : 2) * p.chunk_bytes), run, p);
}

}  // namespace

void need_warpgroups(const Run& run) {
  if (!has_warpgroups(run))
    throw std::invalid_argument("OTGEN_CUDA_FILTER: wgmma wants a GPU of compute capability 9.0 and a build for 90a");
}

template <class X, class T>
void search_filtered(const Samples<X>& s, const Targets<T>& t, const Run& run) {
  if (t.filter == Filter::kWgmma) need_warpgroups(run);
  with_product(t.filter, t.d, [&](auto product) {
    using P = decltype(product);
    pack_samples<P>(s, t.d, run);
    const int depth = P::depth(t.d), chunk_bytes = kTileRows * depth * int(sizeof(typename P::Word));
    const Filtered p{s.x,
                     t.y,
                     t.h,
                     std::is_same_v<X, double>,
                     std::is_same_v<T, double>,
                     s.rows,
                     t.m,
                     t.d,
                     s.k,
                     s.packed,
                     t.packed,
                     t.centre,
                     t.heads,
                     s.index,
                     s.score,
                     ceil_div(t.m, kTileRows),
                     ceil_div(t.d, depth),
                     depth,
                     chunk_bytes,
                     false,
                     0};
    if constexpr (std::is_same_v<P, LowProduct>)
      filter_low(p, run);
    else if constexpr (std::is_same_v<P, WgmmaProduct>)
      filter_wgmma(p, run);
    else
      filter_many<P>(p, run);
  });
}

template void search_filtered(const Samples<float>&, const Targets<float>&, const Run&);
template void search_filtered(const Samples<float>&, const Targets<double>&, const Run&);
template void search_filtered(const Samples<double>&, const Targets<double>&, const Run&);

}  // namespace otgen
