// The filtered search: scores of all targets in float32 or bfloat16, of which only each group's largest is looked at;
// the groups that can hold a winner are scored as score.h says.
//
// The bound. Targets are centred, y' = y - c and h' = h - h0, which moves all scores of a sample alike, and rounded to
// y^ and h^; samples are rounded to x^. With `chain` the relative error of a sum (products.h),
//   |filter - true'| <= chain (|h^| + |x^||y^|) + |h' - h^| + |x^||y' - y^| + |x - x^||y'| + underflow,
// and the float64 score differs from the true one by at most (d + 2) 2^-53 (|h| + |x||y|). Over a group g this is at
// most alpha_g + beta_g |x| + gamma_g |x - x^| =: E_g. If a target of group g is among the k best, the group's maximum
// plus E_g is not below the k-th largest of all maxima minus their E: different groups hold different targets. All
// norms are measured, in float64, and rounded up. Where a number is too large for float32 sums, E is infinite, and so
// is where one is not a number: such groups are always scored.
#include <cmath>

#include "filter.h"

namespace otgen {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTileGroups = kTileRows / kGroup;
constexpr int kHead = kTileRows + 3 * kTileGroups;  // heights, then alpha, beta and gamma of the groups
constexpr int kEntries = 24;                        // groups that a sample's shortlist has room for
constexpr double kRoundUp = 1 + 0x1p-20;            // covers the few roundings made while a bound is evaluated
constexpr double kTiny = 0x1p-126;                  // the smallest normal float32
constexpr double kHuge = 1e18;                      // the product of two such numbers is far from the largest float32

static_assert(kEntries <= kWarp && kEntries > kTileGroups);
static_assert(kHead * sizeof(float) % 16 == 0);

// To float32, not below the exact value; infinite beyond `limit`, and for what is not a number.
OTGEN_DEVICE float up(double v, double limit) { return v < limit ? float(v * kRoundUp) : INFINITY; }

OTGEN_DEVICE double warp_sum(double v) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}

// --- the centre ------------------------------------------------------------------------------------------------------

template <class T>
struct Centre {
  const T* y;
  const T* h;
  int64_t m, d;
  double* centre;  // (d + 1,)
};

// Each lane takes a coordinate, the last one the heights, each warp every eighth target.
template <class T>
OTGEN_KERNEL(kThreads)
centre_kernel(Centre<T> p) {
  struct Sums {
    double part[kWarps][kWarp];
  };
  Sums& sums = shared<Sums>();
  const int64_t c = block_index() * kWarp + lane_index();
  double sum = 0;
  if (c <= p.d)
    for (int64_t j = warp_index(); j < p.m; j += kWarps) sum += double(c < p.d ? p.y[j * p.d + c] : p.h[j]);
  sums.part[warp_index()][lane_index()] = sum;
  barrier();
  if (warp_index() != 0 || c > p.d) return;
  for (int w = 1; w < kWarps; ++w) sum += sums.part[w][lane_index()];
  p.centre[c] = sum / double(p.m);
}

// --- packing ---------------------------------------------------------------------------------------------------------

template <class V>
struct Pack {
  const V* v;            // (rows, d)
  const double* centre;  // (d,) or null
  int64_t rows, d;
  Packed packed;
};

// A warp rounds a row, (v - centre), to words and measures what that did to it. Past the last row and the last
// coordinate of a tile there are zeros.
template <class V, class P, bool kSamples>
OTGEN_KERNEL(kThreads)
pack_kernel(Pack<V> p) {
  using Word = typename P::Word;
  const int64_t row = block_index() * kWarps + warp_index(), chunks = ceil_div(p.d, P::kDepth);
  const int r = int(row % kTileRows);
  Word* tile = static_cast<Word*>(p.packed.words) + row / kTileRows * chunks * kTileRows * P::kDepth;
  double norm = 0, residual = 0, original = 0;
  for (int64_t c = lane_index(); c < chunks * P::kDepth; c += kWarp) {
    Word word = P::round(0.0f);
    if (row < p.rows && c < p.d) {
      const double v = double(p.v[row * p.d + c]), centred = p.centre == nullptr ? v : v - p.centre[c];
      word = P::round(float(centred));
      const double rounded = double(P::value(word));
      const double off = fabs(centred - rounded) + 0x1p-52 * fabs(centred) + kTiny;  // the subtraction rounds, too
      norm += rounded * rounded, residual += off * off, original += v * v;
    }
    const int at = int(c % P::kDepth);
    tile[c / P::kDepth * kTileRows * P::kDepth + (kSamples ? P::sample_place(r, at) : P::target_place(r, at))] = word;
  }
  norm = sqrt(warp_sum(norm)), residual = sqrt(warp_sum(residual)), original = sqrt(warp_sum(original));
  if (lane_index() != 0 || row >= p.rows) return;
  p.packed.norm[row] = up(norm + residual, kHuge);
  p.packed.residual[row] = up(residual, kHuge);
  if (!kSamples) p.packed.original[row] = up(original, INFINITY);
}

template <class T>
struct Heads {
  Targets<T> targets;
  double chain;
};

// Heights and bounds of a tile; a thread for each group.
template <class T>
OTGEN_KERNEL(kWarp)
head_kernel(Heads<T> p) {
  const int64_t group = block_index() * kWarp + thread_index(), m = p.targets.m;
  const double d = double(p.targets.d), exact = (d + 2) * 0x1p-53;
  if (group >= ceil_div(m, kTileRows) * kTileGroups) return;
  float* head = p.targets.heads + group / kTileGroups * kHead;
  const int g = int(group % kTileGroups);
  double norm = 0, residual = 0, original = 0, h_abs = 0, h_residual = 0, h_original = 0;
  bool huge = false;
  for (int t = 0; t < kGroup; ++t) {
    const int64_t j = group * kGroup + t;
    head[g * kGroup + t] = -INFINITY;
    if (j >= m) continue;
    const double h = double(p.targets.h[j]), centred = h - p.targets.centre[p.targets.d];
    const float rounded = float(centred);
    head[g * kGroup + t] = rounded;
    norm = fmax(norm, double(p.targets.packed.norm[j]));
    residual = fmax(residual, double(p.targets.packed.residual[j]));
    original = fmax(original, double(p.targets.packed.original[j]));
    h_abs = fmax(h_abs, fabs(double(rounded)));
    h_residual = fmax(h_residual, fabs(centred - double(rounded)) + 0x1p-52 * fabs(centred));
    h_original = fmax(h_original, fabs(h));
    huge = huge || !(fabs(centred) < kHuge);
  }
  const double underflow = kTiny * (2 * d + 4 + sqrt(d) * norm);
  const double alpha = p.chain * h_abs + h_residual + exact * h_original + underflow;
  const double beta = p.chain * norm + residual + exact * original;
  float* bounds = head + kTileRows + g;
  bounds[0] = huge ? INFINITY : up(alpha, INFINITY);
  bounds[kTileGroups] = up(beta, INFINITY);
  bounds[2 * kTileGroups] = up(norm, INFINITY);
}

// --- the filter ------------------------------------------------------------------------------------------------------

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
  constexpr int kShare = kTileRows / kWarps;
  for (int r = warp_index() * kShare; r < (warp_index() + 1) * kShare; ++r) {
    const int64_t row = block_index() * kTileRows + r;
    if (row >= p.samples.rows) return;
    const int count = prune(lists, r);
    if (all || count > (kEntries - kTileGroups) / 2) score_listed(p, lists, row, r, count);
  }
}

template <class P, class X, class T>
OTGEN_DEVICE void begin_copies(const Filtered<X, T>& p, Shortlists& lists, char* x_chunks, char* y_chunks, int64_t tile,
                               int64_t chunk, int stage) {
  constexpr int kPieces = kChunkBytes / 16;
  const char* y = static_cast<const char*>(p.targets.packed.words) + (tile * p.chunks + chunk) * kChunkBytes;
  for (int i = thread_index(); i < kPieces; i += kThreads) copy_16(y_chunks + stage * kChunkBytes + i * 16, y + i * 16);
  if (tile == 0 || !p.resident) {
    const char* x = static_cast<const char*>(p.samples.packed.words) + (block_index() * p.chunks + chunk) * kChunkBytes;
    char* to = x_chunks + (p.resident ? chunk : stage) * kChunkBytes;
    for (int i = thread_index(); i < kPieces; i += kThreads) copy_16(to + i * 16, x + i * 16);
  }
  if (chunk == 0 && thread_index() < kHead / 4)
    copy_16(lists.head[tile % 2] + thread_index() * 4, p.targets.heads + tile * kHead + thread_index() * 4);
}

// A block searches 128 samples among all targets. Two stages: while one chunk is multiplied, the next one is copied.
template <class X, class T, class P>
OTGEN_KERNEL(kThreads, 2)
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
  for (int i = thread_index(); i < kTileGroups * kTileRows; i += kThreads)
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

template <class V, class P, bool kSamples>
void pack(const V* v, const double* centre, int64_t rows, int64_t d, const Packed& packed, const Run& run) {
  const int64_t padded = ceil_div(rows, kTileRows) * kTileRows;
  launch("pack", pack_kernel<V, P, kSamples>, padded / kWarps, kThreads, 0, run, Pack<V>{v, centre, rows, d, packed});
}

template <class P, class T>
void pack_all(const Targets<T>& t, const Run& run) {
  launch("centre", centre_kernel<T>, ceil_div(t.d + 1, kWarp), kThreads, sizeof(double) * kThreads, run,
         Centre<T>{t.y, t.h, t.m, t.d, t.centre});
  pack<T, P, false>(t.y, t.centre, t.m, t.d, t.packed, run);
  launch("bounds", head_kernel<T>, ceil_div(ceil_div(t.m, kTileRows) * kTileGroups, kWarp), kWarp, 0, run,
         Heads<T>{t, P::chain(t.d)});
}

template <class P, class X, class T>
void search_with(const Samples<X>& s, const Targets<T>& t, const Run& run) {
  pack<X, P, true>(s.x, nullptr, s.rows, t.d, s.packed, run);
  const int64_t chunks = ceil_div(t.d, P::kDepth), base = ceil_div(sizeof(Shortlists), 16) * 16 + 2 * kChunkBytes;
  const bool resident = base + chunks * kChunkBytes <= shared_limit(run);
  const int64_t bytes = base + (resident ? chunks : 2) * kChunkBytes;
  launch("filter", filter_kernel<X, T, P>, ceil_div(s.rows, kTileRows), kThreads, size_t(bytes), run,
         Filtered<X, T>{s, t, ceil_div(t.m, kTileRows), chunks, resident});
}

// Bytes of a packed row.
int64_t row_bytes(int64_t d, Filter filter) {
  if (filter == Filter::kBfloat16) return ceil_div(d, Bfloat16Product::kDepth) * (kChunkBytes / kTileRows);
  return ceil_div(d, Float32Product::kDepth) * (kChunkBytes / kTileRows);
}

Packed lay_out(int64_t rows, int64_t d, Filter filter, Space& space) {
  Packed packed{};
  packed.words = space.take<char>(ceil_div(rows, kTileRows) * kTileRows * row_bytes(d, filter));
  packed.norm = space.take<float>(rows), packed.residual = space.take<float>(rows);
  return packed;
}

}  // namespace

Packed lay_out_samples(int64_t rows, int64_t d, Filter filter, Space& space) {
  return filter == Filter::kNone ? Packed{} : lay_out(rows, d, filter, space);
}

template <class T>
Targets<T> lay_out_targets(const T* y, const T* h, int64_t m, int64_t d, int64_t k, Space& space) {
  Targets<T> targets{y, h, m, d, filter_for(k), {}, nullptr, nullptr};
  if (targets.filter == Filter::kNone) return targets;
  targets.packed = lay_out(m, d, targets.filter, space);
  targets.packed.original = space.take<float>(m);
  targets.centre = space.take<double>(d + 1);
  targets.heads = space.take<float>(ceil_div(m, kTileRows) * kHead);
  return targets;
}

template <class T>
void pack_targets(const Targets<T>& targets, const Run& run) {
  if (targets.filter == Filter::kFloat32) pack_all<Float32Product>(targets, run);
  if (targets.filter == Filter::kBfloat16) pack_all<Bfloat16Product>(targets, run);
}

template <class X, class T>
void search_filtered(const Samples<X>& samples, const Targets<T>& targets, const Run& run) {
  if (targets.filter == Filter::kFloat32)
    search_with<Float32Product>(samples, targets, run);
  else
    search_with<Bfloat16Product>(samples, targets, run);
}

template Targets<float> lay_out_targets(const float*, const float*, int64_t, int64_t, int64_t, Space&);
template Targets<double> lay_out_targets(const double*, const double*, int64_t, int64_t, int64_t, Space&);
template void pack_targets(const Targets<float>&, const Run&);
template void pack_targets(const Targets<double>&, const Run&);
template void search_filtered(const Samples<float>&, const Targets<float>&, const Run&);
template void search_filtered(const Samples<float>&, const Targets<double>&, const Run&);
template void search_filtered(const Samples<double>&, const Targets<double>&, const Run&);

}  // namespace otgen
