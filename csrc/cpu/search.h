// The search for the best targets of a tile of samples, shared by assign, topk and measure.
//
// A filter in float32 keeps the largest score of every group of targets; a bound on its error names the groups that
// can hold a winner; those are scored again as score.h says. So the winner is exact and the filter may be as crude and
// as fast as its bound allows.
//
// The bound. Targets are centred and scaled, y' = (y - c) 2^-a and h' = (h - h0) 2^-a, which moves all scores of a
// sample alike, and rounded to float32, y^ and h^. With u = 2^-24 and the filter's chain of d multiply-adds from h^,
//   |filter - true'| <= (d + 2) u (|h^| + |x||y^|)       rounding of the chain (two a step where there is no FMA: 2d +
//   2)
//                     + |x||y' - y^| + |h' - h^|           rounding of the targets, as measured
//                     + u |x||y^|                          rounding of x, where x is double
//                     + underflow                          2^-126 a step, also with denormals flushed
// and the float64 score differs from the true one by at most ((d + 2) 2^-53 (|h| + |x||y|) + d 2^-1074) 2^-a. Over a
// group g this is at most alpha_g + beta_g |x| =: E_g. If j of group g wins, then filter_j + E_g >= filter_i - E_i for
// every i; hence a group may be dropped when its maximum plus E_g is below the best (k-th best) of all maxima minus
// their E.
#pragma once

#include <memory>
#include <vector>

#include "../common.h"
#include "../params.h"

namespace otgen {

constexpr int kTile = 32;   // samples that are scored together, on the lanes of vector registers
constexpr int kGroup = 12;  // targets of one group: with two vectors of samples, 24 accumulators of 32 registers

// The targets as the filter reads them.
struct Panels {
  int64_t m = 0, d = 0, groups = 0;
  const float* y = nullptr;      // (groups, d, kGroup), centred, scaled, rounded; zero past the last target
  const float* h = nullptr;      // (groups, kGroup), likewise; -inf past the last target
  const float* alpha = nullptr;  // (groups,)
  const float* beta = nullptr;   // (groups,)
};

// Groups that may hold one of the k best targets of a sample; one for each sample of a tile.
struct Shortlist {
  struct Entry {
    int32_t group;
    float upper;  // no target of the group scores above this
  };
  std::vector<Entry> entries;
  std::vector<float> lower;  // min-heap of the k largest lower bounds among group maxima
  std::vector<int64_t> best_index;
  std::vector<double> best_score;  // the k best scored so far, in falling order
};

// What the filter updates: `floor` is the k-th largest lower bound so far, -inf until there are k.
struct TileState {
  alignas(64) float floor[kTile];
  alignas(64) float norm[kTile];  // |x|, rounded up
  void* search;                   // for `shortlist`
  void (*shortlist)(TileState&, int lane, int32_t group, float upper, float lower);
};

// Reads tiles of samples against targets. X is the type of the samples, T that of targets and heights.
template <class T>
class Search {
 public:
  // Packs the targets; y and h are kept by reference.
  Search(const T* y, const T* h, int64_t m, int64_t d, int64_t k);

  const Panels& panels() const { return panels_; }
  int64_t k() const { return k_; }
  int64_t d() const { return panels_.d; }

  // The work space of one thread: room for a block of tiles.
  template <class X>
  class Block {
   public:
    Block(const Search& search, int tiles);
    ~Block();

    // The samples of a tile, (d, kTile): written by the caller before `run`, which wants unused lanes zero.
    X* samples(int tile) { return exact_.get() + size_t(tile) * search_.d() * kTile; }

    // Finds the k best targets of every sample in the first `tiles` tiles.
    void run(int tiles);

    const int64_t* index(int tile, int lane) const { return lists_[tile * kTile + lane].best_index.data(); }
    const double* score(int tile, int lane) const { return lists_[tile * kTile + lane].best_score.data(); }

   private:
    static void shortlist(TileState& state, int lane, int32_t group, float upper, float lower);
    void score_listed(int tile, int lane);

    const Search& search_;
    std::unique_ptr<X[]> exact_;
    std::vector<float> rounded_;  // the samples in float32, where X is double
    std::vector<TileState> states_;
    std::vector<Shortlist> lists_;
    int capacity_;
  };

 private:
  const T* y_;
  const T* h_;
  int64_t k_;
  float huge_norm_;  // samples at least so long are scored against everything
  Panels panels_;
  std::vector<float> packed_y_, packed_h_, alpha_, beta_;
};

// A block holds this many samples at most; enough to read a chunk of targets from L2 many times.
constexpr int kMaxTiles = 8;

// Tiles per block so that every thread gets several blocks.
inline int tiles_per_block(int64_t n, int threads) {
  const int64_t fair = ceil_div(n, int64_t(kTile) * threads * 4);
  return int(fair < 1 ? 1 : fair > kMaxTiles ? kMaxTiles : fair);
}

}  // namespace otgen
