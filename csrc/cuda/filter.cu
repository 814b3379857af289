// The filtered search: a block takes 128 samples through all targets, a tile of 128 after the other.
#include <cmath>

#include "filter.h"
#include "shortlists.h"

namespace otgen {
namespace {

template <class P, class X, class T>
OTGEN_DEVICE void begin_copies(const Filtered<X, T>& p, Shortlists& lists, char* x_chunks, char* y_chunks, int64_t tile,
                               int64_t chunk, int stage) {
  constexpr int kPieces = kChunkBytes / 16;
  const char* y = static_cast<const char*>(p.targets.packed.words) + (tile * p.chunks + chunk) * kChunkBytes;
  for (int i = thread_index(); i < kPieces; i += kFilterThreads)
    copy_16(y_chunks + stage * kChunkBytes + i * 16, y + i * 16);
  if (tile == 0 || !p.resident) {
    const char* x = static_cast<const char*>(p.samples.packed.words) + (block_index() * p.chunks + chunk) * kChunkBytes;
    char* to = x_chunks + (p.resident ? chunk : stage) * kChunkBytes;
    for (int i = thread_index(); i < kPieces; i += kFilterThreads) copy_16(to + i * 16, x + i * 16);
  }
  if (chunk == 0 && thread_index() < kHead / 4)
    copy_16(lists.head[tile % 2] + thread_index() * 4, p.targets.heads + tile * kHead + thread_index() * 4);
}

// A block searches 128 samples among all targets. Two stages: while one chunk is multiplied, the next one is copied.
template <class X, class T, class P>
OTGEN_KERNEL(kFilterThreads, 2)
filter_kernel(Filtered<X, T> p) {
  using Word = typename P::Word;
  static_assert(kTileRows * P::kDepth * sizeof(Word) == kChunkBytes);
  Shortlists& lists = shared<Shortlists>();
  char* y_chunks = reinterpret_cast<char*>(&lists) + ceil_div(sizeof(Shortlists), 16) * 16;
  char* x_chunks = y_chunks + 2 * kChunkBytes;
  const int64_t first = block_index() * kTileRows, groups = ceil_div(p.targets.m, kGroup);

  if (thread_index() < kTileRows) {
    const int64_t row = first + thread_index();
    lists.norm[thread_index()] = row < p.samples.rows ? p.samples.packed.norm[row] : 0.0f;
    lists.residual[thread_index()] = row < p.samples.rows ? p.samples.packed.residual[row] : 0.0f;
    lists.floor[thread_index()] = to_ordered(-INFINITY);
    lists.count[thread_index()] = lists.scored[thread_index()] = 0;
  }
  if (thread_index() < 2) lists.full[thread_index()] = 0;
  for (int i = thread_index(); i < kTileGroups * kTileRows; i += kFilterThreads)
    lists.best[i / kTileRows][i % kTileRows] = lists.second[i / kTileRows][i % kTileRows] = -INFINITY;

  float s[kLaneRows][kGroup];
  int64_t tile = 0, chunk = 0;
  begin_copies<P>(p, lists, x_chunks, y_chunks, 0, 0, 0);
  for (int stage = 0; tile < p.tiles; stage ^= 1) {
    copy_wait();
    barrier();  // the chunk is there, and nobody reads the other stage any more
    if (lists.full[stage ^ 1] != 0) {
      barrier();
      if (thread_index() == 0) lists.full[stage ^ 1] = 0;
      go_through_lists(p, lists, false);
      barrier();
    }
    const bool last = chunk + 1 == p.chunks;
    const int64_t next_tile = last ? tile + 1 : tile, next_chunk = last ? 0 : chunk + 1;
    if (next_tile < p.tiles) begin_copies<P>(p, lists, x_chunks, y_chunks, next_tile, next_chunk, stage ^ 1);

    const float* head = lists.head[tile % 2];
    if (chunk == 0)
#pragma unroll
      for (int t = 0; t < kGroup; ++t)
#pragma unroll
        for (int i = 0; i < kLaneRows; ++i) s[i][t] = head[lane_column() + t];
    const int64_t left = p.targets.d - chunk * P::kDepth;
    P::multiply(reinterpret_cast<const Word*>(x_chunks + (p.resident ? chunk : stage) * kChunkBytes),
                reinterpret_cast<const Word*>(y_chunks + stage * kChunkBytes), int(left < P::kDepth ? left : P::kDepth),
                s);

    if (last) {
      const int g = lane_column() / kGroup;
      const int64_t group = tile * kTileGroups + g;
      const float *alpha = head + kTileRows + g, *beta = alpha + kTileGroups, *gamma = beta + kTileGroups;
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i) {
        float top = s[i][0];
#pragma unroll
        for (int t = 1; t < kGroup; ++t) top = fmaxf(top, s[i][t]);
        const int r = lane_row(i);
        const float error = *alpha + *beta * lists.norm[r] + *gamma * lists.residual[r];
        const float upper = top + error, lower = top - error;
        if (group >= groups || first + r >= p.samples.rows || upper < from_ordered(fresh(&lists.floor[r]))) continue;
        const int at = atomic_add(&lists.count[r], 1);
        lists.group[r][at] = int(group);
        lists.upper[r][at] = upper == upper ? upper : INFINITY;
        if (at + 1 > kEntries - kTileGroups) lists.full[stage] = 1;
        // The second largest that this lane has seen is not above the second largest of all.
        float &best = lists.best[g][r], &second = lists.second[g][r];
        if (lower > best)
          second = best, best = lower;
        else if (lower > second)
          second = lower;
        atomic_max(&lists.floor[r], to_ordered(p.samples.k == 1 ? best : second));
      }
    }
    tile = next_tile, chunk = next_chunk;
  }
  barrier();
  go_through_lists(p, lists, true);
}

template <class P, class X, class T>
void search_with(const Samples<X>& s, const Targets<T>& t, const Run& run) {
  pack_samples<P>(s, t.d, run);
  const int64_t chunks = ceil_div(t.d, P::kDepth), base = ceil_div(sizeof(Shortlists), 16) * 16 + 2 * kChunkBytes;
  const bool resident = base + chunks * kChunkBytes <= shared_limit(run);
  const int64_t bytes = base + (resident ? chunks : 2) * kChunkBytes;
  launch("filter", filter_kernel<X, T, P>, ceil_div(s.rows, kTileRows), kFilterThreads, size_t(bytes), run,
         Filtered<X, T>{s, t, ceil_div(t.m, kTileRows), chunks, resident});
}

}  // namespace

template <class X, class T>
void search_filtered(const Samples<X>& samples, const Targets<T>& targets, const Run& run) {
  if (targets.filter == Filter::kFloat32)
    search_with<Float32Product>(samples, targets, run);
  else
    search_with<Bfloat16Product>(samples, targets, run);
}

template void search_filtered(const Samples<float>&, const Targets<float>&, const Run&);
template void search_filtered(const Samples<float>&, const Targets<double>&, const Run&);
template void search_filtered(const Samples<double>&, const Targets<double>&, const Run&);

}  // namespace otgen
