// Groups that may hold one of the k best targets of a sample, in the shared memory of the block that filters, and what
// becomes of them.
#pragma once

#include <cmath>

#include "filter.h"

namespace otgen {

// `floor` is not above the k-th best score, as filtered scores go, and an integer that is ordered like the number.
template <int kRows, int kRoom>
struct Shortlists {
  static_assert(kRoom <= kWarp, "one lane an entry");
  int floor[kRows];
  int count[kRows];
  int scored[kRows];  // targets in the sample's list of the best
  int group[kRows][kRoom];
  float upper[kRows][kRoom];  // no target of the group scores above this

  OTGEN_DEVICE_MEMBER void clear(int r);
};

OTGEN_DEVICE int to_ordered(float v) {
  const int bits = float_as_bits(v);
  return bits >= 0 ? bits : bits ^ 0x7FFFFFFF;
}
OTGEN_DEVICE float from_ordered(int v) { return bits_as_float(v >= 0 ? v : v ^ 0x7FFFFFFF); }

template <int kRows, int kRoom>
OTGEN_DEVICE_MEMBER void Shortlists<kRows, kRoom>::clear(int r) {
  floor[r] = to_ordered(-INFINITY), count[r] = scored[r] = 0;
}

// Calls f(x, y, h) with the caller's numbers: the sample's, all targets', all heights'.
template <class F>
OTGEN_DEVICE void with_numbers(const Filtered& p, int64_t row, F&& f) {
  const float* x = static_cast<const float*>(p.x) + (p.wide_samples ? 0 : row * p.d);
  if (!p.wide_targets) return f(x, static_cast<const float*>(p.y), static_cast<const float*>(p.h));
  const double *y = static_cast<const double*>(p.y), *h = static_cast<const double*>(p.h);
  if (!p.wide_samples) return f(x, y, h);
  f(static_cast<const double*>(p.x) + row * p.d, y, h);
}

// Forgets the groups that have been ruled out since they were noted. One warp.
template <class L>
OTGEN_DEVICE int prune(L& lists, int r) {
  const int lane = lane_index(), count = lists.count[r];
  const float floor = from_ordered(lists.floor[r]);
  const int group = lane < count ? lists.group[r][lane] : 0;
  const float upper = lane < count ? lists.upper[r][lane] : 0.0f;
  const bool kept = lane < count && !(upper < floor);
  const uint32_t all = ballot(kept);
  warp_barrier();  // all have read before any writes
  if (kept) {
    const int at = count_bits(all & ((1u << lane) - 1));
    lists.group[r][at] = group, lists.upper[r][at] = upper;
  }
  if (lane == 0) lists.count[r] = count_bits(all);
  warp_barrier();
  return count_bits(all);
}

// Puts a target that it wants into a list in global memory. One warp: the lanes look at 32 places at a time, from the
// end, and move those that are worse.
OTGEN_DEVICE void insert_together(List& best, double s, int64_t j) {
  int64_t at = best.size < best.k ? best.size++ : best.k - 1;
  for (int moved = kWarp; moved == kWarp; at -= moved) {
    const int64_t place = at - 1 - lane_index();
    const double other = place >= 0 ? best.score[place] : INFINITY;
    const int64_t other_j = place >= 0 ? best.index[place] : 0;
    const bool worse = place >= 0 && better(s, j, other, other_j);
    moved = count_bits(ballot(worse));
    warp_barrier();  // all have read before any writes
    if (worse) best.score[place + 1] = other, best.index[place + 1] = other_j;
    warp_barrier();
  }
  if (lane_index() == 0) best.score[at] = s, best.index[at] = j;
  warp_barrier();
}

OTGEN_DEVICE double sum_of_lanes(double v) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}

// A float64 score as filtered scores go, or somewhat less. One warp.
//
// A target whose filtered score and E add up to v has a float64 score of at most v + h0 + <x, c> (filter.h). That sum
// is known within (d + 2) 2^-53 times its terms' sizes; the rest of `off` and the 2^-22 cover the roundings here.
OTGEN_DEVICE float as_filtered(const Filtered& p, int64_t row, double score) {
  double sum = 0, size = 0;
  with_numbers(p, row, [&](const auto* x, const auto*, const auto*) {
    for (int64_t c = lane_index(); c < p.d; c += kWarp) {
      const double term = double(x[c]) * p.centre[c];
      sum += term, size += fabs(term);
    }
  });
  sum = sum_of_lanes(sum) + p.centre[p.d], size = sum_of_lanes(size) + fabs(p.centre[p.d]);
  const double off = double(p.d + 8) * 0x1p-52 * (size + fabs(score)), v = score - sum - off;
  return fabs(v) < 1e38 ? float(v - fabs(v) * 0x1p-22 - 0x1p-126) : -INFINITY;
}

// Scores the listed groups, two at a time, a target for each lane, and empties the list. One warp; its lanes keep the
// same k best, a few of them in registers, many in global memory.
template <class L>
OTGEN_DEVICE void score_listed(const Filtered& p, L& lists, int64_t row, int r, int count) {
  const int64_t k = p.k;
  const bool few = k <= kTracked;
  int64_t index[kTracked];
  double score_of[kTracked];
  List best{few ? index : p.index + row * k, few ? score_of : p.score + row * k, k, lists.scored[r]};
  if (few)
    for (int64_t i = 0; i < best.size; ++i) index[i] = p.index[row * k + i], score_of[i] = p.score[row * k + i];

  for (int e = 0; e < count; e += 2) {
    const int mine = e + lane_index() / kGroup;
    const int64_t j = mine < count ? int64_t(lists.group[r][mine]) * kGroup + lane_index() % kGroup : p.m;
    bool live = j < p.m;
    double s = -INFINITY;
    if (live)
      with_numbers(p, row, [&](const auto* x, const auto* y, const auto* h) { s = score(x, y + j * p.d, h[j], p.d); });
    if (!(s == s)) s = -INFINITY;  // not a number: last
    if (!few) {
      for (uint32_t wanted = ballot(live && best.wants(s, j)); wanted != 0; wanted &= wanted - 1) {
        const int lane = count_bits((wanted & (0u - wanted)) - 1);  // the first of them
        const double one = shuffle(s, lane);
        const int64_t one_j = shuffle(j, lane);
        if (best.wants(one, one_j)) insert_together(best, one, one_j);
      }
      continue;
    }
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
  if (!few && best.size == k) {
    const int floor = to_ordered(as_filtered(p, row, best.score[k - 1]));
    if (lane_index() == 0 && floor > lists.floor[r]) lists.floor[r] = floor;
  }
  if (lane_index() == 0) {
    if (few)
      for (int64_t i = 0; i < best.size; ++i) p.index[row * k + i] = index[i], p.score[row * k + i] = score_of[i];
    lists.scored[r] = int(best.size), lists.count[r] = 0;
  }
  warp_barrier();
}

// Makes room in a list; with `all`, scores what is left in it. One warp.
template <class L>
OTGEN_DEVICE void go_through(const Filtered& p, L& lists, int64_t row, int r, bool all, int few) {
  const int count = prune(lists, r);
  if (all || count > few) score_listed(p, lists, row, r, count);
}

}  // namespace otgen
