// The filtered search with the matrix unit of sm_90a, as a pipeline: one thread copies targets, chunk after chunk, into
// a ring of stages; two teams of four warps, each with 128 samples, multiply them, and note the groups that matter.
//
// A team's samples are two halves with accumulators of their own: while the matrix unit multiplies for one half, the
// team notes what the other half's scores with a tile of targets say. With two chunks of coordinates,
//
//   multiplied for   first   second  | first   second  | first   second  ...
//   chunk              0       0     |   1       1     |   0       0         of the next tile
//   noted for                        |           first | second
//
// A team begins a product only when its other one has ended: what is in flight across an iteration of the loop together
// with another product, the compiler would serialise. The other team's product fills the gap.
//
// With 256 samples in a block, the targets cross the L2 cache half as often as with 128. Of a sample's scores with a
// group only the largest is looked at; those of a sample belong to four lanes of one warp, so its list is theirs alone,
// and warps wait for each other in the products only.
#include <cmath>
#include <limits>

#include "filter.h"
#include "shortlists.h"

namespace otgen {
namespace {

using P = WgmmaProduct;

constexpr int kTeams = 2;                                    // warp groups that multiply, each with a tile of samples
constexpr int kTeamWarps = 4;                                // the hardware's
constexpr int kThreads = (kTeams + 1) * kTeamWarps * kWarp;  // a thread of the third warp group copies
constexpr int kBlockRows = kTeams * kTileRows;
constexpr int kChunkBytes = kTileRows * kGroupDepth * int(sizeof(P::Word));
constexpr int kMostStages = 4;  // of which one is multiplied, one is about to be handed back, and two are on their way

// Groups that a sample's shortlist has room for: odd, so that the lists of a warp lie in different banks, and so few
// that there are four stages in 256 dimensions, too.
constexpr int kRoom = 11;

// Of a sample also the largest lower bound of a group, an integer like `floor`; of a group that is noted also which of
// its targets matter.
struct Lists : Shortlists<kBlockRows, kRoom> {
  int best[kBlockRows];
  uint16_t targets[kBlockRows][kRoom];
};

struct Memory {
  Signal full[kMostStages];        // a stage has been filled
  Signal empty[kMostStages];       // and has been read by all
  float head[kMostStages][kHead];  // comes with a tile's last chunk
  Lists lists;
};

// In front of it in shared memory, from its beginning on, because products want multiples of 1024 bytes: the samples,
// all chunks of them, if they stay; then the stages, each a chunk of the targets and, if they do not stay, of each
// team's samples.
OTGEN_HD int64_t kept_bytes(const Filtered& p) { return p.resident ? p.chunks * kTeams * kChunkBytes : 0; }
OTGEN_HD int64_t stage_bytes(const Filtered& p) { return (p.resident ? 1 : 1 + kTeams) * kChunkBytes; }

#if OTGEN_WARP_GROUPS

constexpr int kHalf = kTileRows / 2;        // samples of a product
constexpr int kFull = kRoom - kTileGroups;  // as many may be in a list when the next tile comes
constexpr int kFew = kFull - 1;             // and as many are left in one that is gone through

OTGEN_DEVICE char* targets_of(const Filtered& p, int stage) {
  return &shared<char>() + kept_bytes(p) + stage * stage_bytes(p);
}
OTGEN_DEVICE char* samples_of(const Filtered& p, int stage, int chunk, int team) {
  if (p.resident) return &shared<char>() + (chunk * kTeams + team) * kChunkBytes;
  return targets_of(p, stage) + (1 + team) * kChunkBytes;
}
OTGEN_DEVICE Memory& memory_of(const Filtered& p) { return *reinterpret_cast<Memory*>(targets_of(p, p.stages)); }

// Where the pipeline is: round after round through the stages.
struct Turn {
  int stage = 0, parity = 0;

  OTGEN_DEVICE_MEMBER void next(int stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

// One thread: fills stages as they become empty.
OTGEN_DEVICE void copy_all(const Filtered& p, Memory& memory, int teams) {
  const char *y = static_cast<const char*>(p.targets.words), *x = static_cast<const char*>(p.samples.words);
  Turn turn;
  for (int64_t tile = 0; tile < p.tiles; ++tile)
    for (int chunk = 0; chunk < p.chunks; ++chunk, turn.next(p.stages)) {
      const bool samples = tile == 0 || !p.resident, last = chunk + 1 == p.chunks;
      Signal& full = memory.full[turn.stage];
      wait_for(memory.empty[turn.stage], turn.parity ^ 1);  // in the first round they are
      arrive_expecting(full, (1 + (samples ? teams : 0)) * kChunkBytes + (last ? kHead * int(sizeof(float)) : 0));
      copy_bulk(targets_of(p, turn.stage), y + (tile * p.chunks + chunk) * kChunkBytes, kChunkBytes, full);
      if (last) copy_bulk(memory.head[turn.stage], p.heads + tile * kHead, kHead * int(sizeof(float)), full);
      if (!samples) continue;
      for (int team = 0; team < teams; ++team)
        copy_bulk(samples_of(p, turn.stage, chunk, team),
                  x + ((block_index() * kTeams + team) * p.chunks + chunk) * kChunkBytes, kChunkBytes, full);
    }
}

// What a sample's bounds are made of.
struct Sizes {
  float norm, residual;
};

// Notes a group, if it still matters, with those of its targets that do.
OTGEN_DEVICE void note_group(const Filtered& p, Lists& lists, const float (&s)[kGroup], const float* head, int tile,
                             int g, int r, float top, float error) {
  const float floor = from_ordered(fresh(&lists.floor[r])), upper = top + error;
  if (upper < floor) return;
  const int64_t group = int64_t(tile) * kTileGroups + g, left = p.m - group * kGroup;
  if (left <= 0 || block_index() * kBlockRows + r >= p.rows) return;
  uint32_t targets = 0;
#pragma unroll
  for (int t = 0; t < kGroup; ++t) targets |= uint32_t(!(s[t] + head[height_place(g, t)] + error < floor)) << t;
  if (left < kGroup) targets &= (1u << left) - 1;
  const int at = atomic_add(&lists.count[r], 1);
  lists.group[r][at] = int(group), lists.targets[r][at] = uint16_t(targets);
  lists.upper[r][at] = upper == upper ? upper : INFINITY;
  if (p.k > kTracked || !(top - error == top - error)) return;
  // The smaller one of this group's lower bound and the largest before it is not above the second largest of all.
  const int lower = to_ordered(top - error), best = atomic_max(&lists.best[r], lower);
  atomic_max(&lists.floor[r], p.k == 1 || lower < best ? lower : best);
}

// Looks at a half's scores with a tile of targets. This lane's samples are number `first` and the 8th after it; pairs 0
// and 1 are of both with one group, 2 and 3 with another.
OTGEN_DEVICE void note(const Filtered& p, Lists& lists, const float (&s)[kPairs][kGroup], const float* head, int tile,
                       int first, const Sizes (&sizes)[2]) {
  const float floor[2] = {from_ordered(fresh(&lists.floor[first])), from_ordered(fresh(&lists.floor[first + 8]))};
  float top[kPairs], error[kPairs];
  bool matters = false;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const float* h = head + height_place(P::group(i), 0);
    top[i] = -INFINITY;
#pragma unroll
    for (int t = 0; t < kGroup; t += 4) {
      float four[4];
      load_16(h + height_place(0, t), four);
#pragma unroll
      for (int u = 0; u < 4; ++u) top[i] = fmaxf(top[i], s[i][t + u] + four[u]);
    }
    const float *alpha = head + kTileRows + P::group(i), *beta = alpha + kTileGroups, *gamma = beta + kTileGroups;
    error[i] = fmaf(*gamma, sizes[i % 2].residual, fmaf(*beta, sizes[i % 2].norm, *alpha));
    matters |= !(top[i] + error[i] < floor[i % 2]);
  }
  if (!matters) return;
#pragma unroll
  for (int i = 0; i < kPairs; ++i)
    note_group(p, lists, s[i], head, tile, P::group(i), first + i % 2 * 8, top[i], error[i]);
}

// The two best targets of a sample.
struct BestTwo {
  double score[2] = {-INFINITY, -INFINITY};
  int64_t index[2] = {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max()};

  OTGEN_DEVICE_MEMBER void offer(double s, int64_t j) {
    if (better(s, j, score[0], index[0]))
      score[1] = score[0], index[1] = index[0], score[0] = s, index[0] = j;
    else if (better(s, j, score[1], index[1]))
      score[1] = s, index[1] = j;
  }
};

// Scores the targets that this lane's list tells of, some at a time to hide how long each takes.
OTGEN_DEVICE void score_own(const Filtered& p, const Lists& lists, int r, int count, BestTwo& best) {
  with_numbers(p, block_index() * kBlockRows + r, [&](const auto* x, const auto* y, const auto* h) {
    uint32_t left = 0;  // of group number e - 1 of the list
    for (int e = 0, found = kMany; found == kMany;) {
      int64_t j[kMany];
      found = 0;
#pragma unroll
      for (int i = 0; i < kMany; ++i) {
        if (left == 0 && e < count) left = lists.targets[r][e++];
        j[i] = i > 0 ? j[i - 1] : 0;
        if (left == 0) continue;
        j[i] = int64_t(lists.group[r][e - 1]) * kGroup + count_bits((left & (0u - left)) - 1);
        left &= left - 1, ++found;
      }
      if (found == 0) break;
      const decltype(x) xs[kMany] = {x, x, x, x};
      const decltype(y) ys[kMany] = {y + j[0] * p.d, y + j[1] * p.d, y + j[2] * p.d, y + j[3] * p.d};
      const std::decay_t<decltype(*h)> hs[kMany] = {h[j[0]], h[j[1]], h[j[2]], h[j[3]]};
      double s[kMany];
      scores(xs, ys, hs, p.d, s);
#pragma unroll
      for (int i = 0; i < kMany; ++i)
        if (i < found) best.offer(s[i] == s[i] ? s[i] : -INFINITY, j[i]);  // not a number: last
    }
  });
}

// Forgets the groups that have been ruled out since they were noted. One lane.
OTGEN_DEVICE int prune_own(Lists& lists, int r) {
  const float floor = from_ordered(lists.floor[r]);
  int kept = 0;
  for (int e = 0; e < lists.count[r]; ++e) {
    if (lists.upper[r][e] < floor) continue;
    lists.group[r][kept] = lists.group[r][e], lists.upper[r][kept] = lists.upper[r][e];
    lists.targets[r][kept++] = lists.targets[r][e];
  }
  return kept;
}

// Of the 32 samples of a warp, a lane's.
OTGEN_DEVICE int row_of(int lane) {
  return warp_index() / kTeamWarps * kTileRows + lane / 16 * kHalf + warp_index() % kTeamWarps * 16 + lane % 16;
}

// Makes room in the lists of this warp that are full, or, with `all`, scores what is left in all of them: each lane
// sees to its own, but for the lists of many best, which a warp keeps together.
OTGEN_DEVICE void go_through_own(const Filtered& p, Lists& lists, bool all, BestTwo& best) {
  warp_barrier();  // what the others noted is there
  const int r = row_of(lane_index());
  const bool wanted = block_index() * kBlockRows + r < p.rows && (all || lists.count[r] > kFull);
  uint32_t left = ballot(wanted);
  if (p.k > kTracked) {
    for (; left != 0; left &= left - 1) {
      const int row = row_of(count_bits((left & (0u - left)) - 1));
      go_through(p, lists, block_index() * kBlockRows + row, row, all, kFew);
    }
  } else if (wanted) {
    const int count = prune_own(lists, r);
    const bool scored = all || count > kFew;
    if (scored) score_own(p, lists, r, count, best);
    lists.count[r] = scored ? 0 : count;
  }
  warp_barrier();
}

// The four warps of a team: their samples against all targets.
OTGEN_DEVICE void search_all(const Filtered& p, Memory& memory) {
  const int team = warp_index() / kTeamWarps, first = team * kTileRows + P::row(0);
  Lists& lists = memory.lists;
  Sizes sizes[2][2];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = block_index() * kBlockRows + first + i / 2 * kHalf + i % 2 * 8;
    sizes[i / 2][i % 2].norm = row < p.rows ? p.samples.norm[row] : 0.0f;
    sizes[i / 2][i % 2].residual = row < p.rows ? p.samples.residual[row] : 0.0f;
  }
  BestTwo best;
  float s[2][kPairs][kGroup] = {};
  const int tiles = int(p.tiles), chunks = int(p.chunks);
  Turn turn;
  int before = 0;  // the stage before
  for (int tile = 0, chunk = 0;; turn.next(p.stages)) {
    const auto* x = reinterpret_cast<const P::Word*>(samples_of(p, turn.stage, chunk, team));
    const auto* y = reinterpret_cast<const P::Word*>(targets_of(p, turn.stage));
    wait_for(memory.full[turn.stage], turn.parity);
    wait_for_product(s[1]);  // with the chunk before
    begin_product(s[0], x, y, chunk > 0);
    if (chunk == 0 && tile > 0) {
      note(p, lists, s[1], memory.head[before], tile - 1, first + kHalf, sizes[1]);
      go_through_own(p, lists, false, best);
    }
    if (chunk > 0 || tile > 0) {
      warp_barrier();
      if (lane_index() == 0) arrive(memory.empty[before]);
    }
    wait_for_product(s[0]);
    begin_product(s[1], x + kHalf * kGroupDepth, y, chunk > 0);
    before = turn.stage;
    if (++chunk < chunks) continue;
    note(p, lists, s[0], memory.head[turn.stage], tile, first, sizes[0]);
    chunk = 0;
    if (++tile == tiles) break;
  }
  wait_for_product(s[1]);
  note(p, lists, s[1], memory.head[before], tiles - 1, first + kHalf, sizes[1]);
  go_through_own(p, lists, true, best);

  const int64_t row = block_index() * kBlockRows + row_of(lane_index());
  if (p.k > kTracked || row >= p.rows) return;
#pragma unroll
  for (int i = 0; i < kTracked; ++i)
    if (i < p.k) p.index[row * p.k + i] = best.index[i], p.score[row * p.k + i] = best.score[i];
}

#endif

OTGEN_KERNEL(kThreads, 1)
wgmma_kernel(OTGEN_CONSTANT Filtered p) {
#if OTGEN_WARP_GROUPS
  Memory& memory = memory_of(p);
  const int teams = at_most(ceil_div(p.rows, kTileRows) - block_index() * kTeams, kTeams);
  if (thread_index() == 0) {
    for (int i = 0; i < p.stages; ++i)
      begin_signal(memory.full[i], 1), begin_signal(memory.empty[i], teams * kTeamWarps);
    publish();
  }
  for (int r = thread_index(); r < kBlockRows; r += kThreads) {
    memory.lists.clear(r);
    memory.lists.best[r] = to_ordered(-INFINITY);
  }
  barrier();
  constexpr int kCopyRegisters = 24, kTeamRegisters = 240;  // (24 + 2 * 240) / 3 = 168 is what the launch gives
  if (warp_index() / kTeamWarps == kTeams) {
    give_registers<kCopyRegisters>();
    if (thread_index() == kTeams * kTeamWarps * kWarp) copy_all(p, memory, teams);
  } else {
    take_registers<kTeamRegisters>();
    if (warp_index() / kTeamWarps < teams) search_all(p, memory);
  }
#endif
}

}  // namespace

void filter_wgmma(Filtered p, const Run& run) {
  constexpr int64_t kRoomForChunks = kGroupShared - sizeof(Memory);
  static_assert(kRoomForChunks >= kMostStages * (1 + kTeams) * kChunkBytes, "all stages, where samples do not stay");
  p.resident = true;
  p.resident = kept_bytes(p) + 2 * stage_bytes(p) <= kRoomForChunks;
  p.stages = at_most((kRoomForChunks - kept_bytes(p)) / stage_bytes(p), kMostStages);
  launch("filter", wgmma_kernel, ceil_div(p.rows, kBlockRows), kThreads,
         size_t(kept_bytes(p) + p.stages * stage_bytes(p)) + sizeof(Memory), run, p, kGroupShared);
}

}  // namespace otgen
