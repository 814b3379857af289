// Groups that may hold one of the k best targets of a sample, in the shared memory of the block that filters, and what
// becomes of them.
#pragma once

#include "filter.h"

namespace otgen {

constexpr int kEntries = 24;  // groups that a sample's shortlist has room for
constexpr int kFilterWarps = kFilterThreads / kWarp;

static_assert(kEntries <= kWarp && kEntries > kTileGroups, "one lane an entry; room for a tile's groups");

template <class X, class T>
struct Filtered {
  Samples<X> samples;
  Targets<T> targets;
  int64_t tiles, chunks;
  bool resident;  // all chunks of the samples stay in shared memory
};

// Groups that may hold one of the k best targets of a sample. `floor` is the k-th largest lower bound so far, as an
// integer that is ordered like the number.
struct Shortlists {
  float head[2][kHead];
  int floor[kTileRows];
  int count[kTileRows];
  int scored[kTileRows];  // targets in the sample's list of the best
  int group[kTileRows][kEntries];
  float upper[kTileRows][kEntries];  // no target of the group scores above this
  int full[2];                       // in turns: some list has no room for another tile
  float norm[kTileRows], residual[kTileRows];
  // The largest lower bounds that the lane with a sample and the groups g, g + 8, ... has seen; nobody else reads them.
  float best[kTileGroups][kTileRows], second[kTileGroups][kTileRows];
};

OTGEN_DEVICE int to_ordered(float v) {
  const int bits = float_as_bits(v);
  return bits >= 0 ? bits : bits ^ 0x7FFFFFFF;
}
OTGEN_DEVICE float from_ordered(int v) { return bits_as_float(v >= 0 ? v : v ^ 0x7FFFFFFF); }

// Forgets the groups that have been ruled out since they were noted. One warp.
OTGEN_DEVICE int prune(Shortlists& lists, int r) {
  const int lane = lane_index(), count = lists.count[r];
  const float floor = from_ordered(lists.floor[r]);
  const int group = lane < count ? lists.group[r][lane] : 0;
  const float upper = lane < count ? lists.upper[r][lane] : 0.0f;
  const bool kept = lane < count && !(upper < floor);
  const uint32_t all = ballot(kept);
  if (kept) {
    const int at = count_bits(all & ((1u << lane) - 1));
    lists.group[r][at] = group, lists.upper[r][at] = upper;
  }
  if (lane == 0) lists.count[r] = count_bits(all);
  warp_barrier();
  return count_bits(all);
}

// Scores the listed groups, two at a time, a target for each lane, and empties the list. One warp; its lanes keep the
// same k best.
template <class X, class T>
OTGEN_DEVICE void score_listed(const Filtered<X, T>& p, Shortlists& lists, int64_t row, int r, int count) {
  const int64_t d = p.targets.d, k = p.samples.k;
  int64_t index[kFilterBest];
  double score_of[kFilterBest];
  List best{index, score_of, k, lists.scored[r]};
  for (int64_t i = 0; i < best.size; ++i)
    index[i] = p.samples.index[row * k + i], score_of[i] = p.samples.score[row * k + i];

  for (int e = 0; e < count; e += 2) {
    const int mine = e + lane_index() / kGroup;
    const int64_t j = mine < count ? int64_t(lists.group[r][mine]) * kGroup + lane_index() % kGroup : p.targets.m;
    bool live = j < p.targets.m;
    double s = -INFINITY;
    if (live) s = score(p.samples.x + row * d, 1, p.targets.y + j * d, p.targets.h[j], d);
    if (!(s == s)) s = -INFINITY;  // not a number: last
    while (true) {
      bool any = live;
      double top = s;
      int64_t top_j = j;
      for (int mask = kWarp / 2; mask > 0; mask /= 2) {
        const bool other = shuffle_xor(int(any), mask) != 0;
        const double other_s = shuffle_xor(top, mask);
        const int64_t other_j = shuffle_xor(top_j, mask);
        if (other && (!any || better(other_s, other_j, top, top_j))) any = true, top = other_s, top_j = other_j;
      }
      if (!any || !best.wants(top, top_j)) break;
      best.insert(top, top_j);
      live = live && j != top_j;
    }
  }
  if (lane_index() == 0) {
    for (int64_t i = 0; i < best.size; ++i)
      p.samples.index[row * k + i] = index[i], p.samples.score[row * k + i] = score_of[i];
    lists.scored[r] = int(best.size), lists.count[r] = 0;
  }
  warp_barrier();
}

// Makes room in every list; at the end, with `all`, scores what is left. Each warp sees to its share of the samples.
template <class X, class T>
OTGEN_DEVICE void go_through_lists(const Filtered<X, T>& p, Shortlists& lists, bool all) {
  constexpr int kShare = kTileRows / kFilterWarps;
  for (int r = warp_index() * kShare; r < (warp_index() + 1) * kShare; ++r) {
    const int64_t row = block_index() * kTileRows + r;
    if (row >= p.samples.rows) return;
    const int count = prune(lists, r);
    if (all || count > (kEntries - kTileGroups) / 2) score_listed(p, lists, row, r, count);
  }
}

}  // namespace otgen
