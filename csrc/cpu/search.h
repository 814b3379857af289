// The search for the best targets of a tile of samples, shared by assign, topk and measure.
//
// Three passes, each over what the one before could not rule out. A filter, as crude and fast as its error bound
// allows, keeps the largest score of every group of targets; the groups that can hold a winner are scored in float32;
// the targets that can win are scored as score.h says, in float64. So the winner is exact.
//
// The bound. Targets are centred and scaled, y' = (y - c) 2^-a and h' = (h - h0) 2^-a, which moves all scores of a
// sample alike, and rounded to y^ and h^ (h^ always float32); samples are rounded to x^. With u = 2^-24 and d
// multiply-adds in float32, in any order,
//   |filter - true'| <= (2 d + 4) u (|h^| + |x^||y^|)   rounding of the sums (two a step where there is no fused
//   operation)
//                     + |x^||y' - y^| + |h' - h^|         rounding of the targets, as measured
//                     + |x - x^||y'|                      rounding of the samples, as measured
//                     + underflow                         2^-126 a step, also with denormals flushed
// and the float64 score differs from the true one by at most (d + 2) 2^-53 (|h| + |x||y|) 2^-a. Over a group g this is
// at most alpha_g + beta_g |x| + gamma_g |x - x^| =: E_g. If j of group g wins, then filter_j + E_g >= filter_i - E_i
// for every i; hence a group may be dropped when its maximum plus E_g is below the best (k-th best) of all maxima minus
// their E. The same holds for single targets and their float32 scores. The rounding is float32's or bfloat16's: a
// product of two bfloat16 is exact in float32, and Intel documents the matrix unit's sums as rounded to nearest in
// float32 with denormals flushed (TDPBF16PS).
//
// Targets are packed by falling height, so that the heights of a group are nearly equal. The matrix unit's filter adds
// the largest of them to the largest product: that is at least the largest score, and at most spread_g, the range of
// the group's heights, above it. So its lower bounds are E_g + spread_g below the maximum, its upper ones E_g above.
#pragma once

#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "../common.h"
#include "../params.h"

namespace otgen {

struct Isa;

constexpr int kTile = 32;      // samples that are scored together, on the lanes of vector registers
constexpr int kMaxGroup = 16;  // targets of a group, at most
constexpr int kDepth = 32;     // coordinates of one step of the bfloat16 matrix unit

// A vector that starts on a cache line: rows of the matrix unit's tiles are one line each, and would be two otherwise.
template <class T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t{64}); }
  bool operator==(const LineAllocator&) const { return true; }
};
template <class T>
using LineVector = std::vector<T, LineAllocator<T>>;

// How the filter reads targets.
enum class Packing {
  kFloat32,   // Panels::y
  kBfloat16,  // Panels::tiles
};

// alpha + beta |x| + gamma |x - x^| bounds the error of a score, by group; arrays of (groups,).
struct Bound {
  const float* alpha;
  const float* beta;
  const float* gamma;
  const float* spread;  // how far a maximum may lie above that of the scores themselves
};

// The targets as the filter reads them.
struct Panels {
  int64_t m = 0, d = 0, groups = 0;
  const float* y = nullptr;  // (groups, d, group), centred, scaled, rounded; zero past the last target; kMaxGroup
                             // more numbers behind, so that whole vectors may be read
  const float* h = nullptr;  // (groups, group), likewise; -inf past the last target
  const uint16_t* tiles = nullptr;  // (groups even, ceil(d / kDepth), group, kDepth) bfloat16; zero past the last
  const float* top = nullptr;       // (groups even,), with tiles: the largest height of each group, -inf past the last
  Bound filter{}, single{};         // of the filter, and of float32 scores from `y`
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
  alignas(64) float norm[kTile];      // |x|, rounded up
  alignas(64) float residual[kTile];  // |x - x^|, rounded up
  void* search;                       // for `shortlist`
  void (*shortlist)(TileState&, int lane, int32_t group, float upper, float lower);
};

// Reads tiles of samples against targets. X is the type of the samples, T that of targets and heights.
template <class T>
class Search {
 public:
  // Packs the targets; y and h are kept by reference.
  Search(const T* y, const T* h, int64_t m, int64_t d, int64_t k, int threads);

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
    struct Candidate {
      int64_t target;
      float upper, lower;
    };

    static void shortlist(TileState& state, int lane, int32_t group, float upper, float lower);
    void begin(int tile);
    void score_listed(int tile, int lane);
    void score_exactly(Shortlist& list, const X* x, int64_t j) const;
    const float* rounded(int tile);
    const void* prepared(int tile);

    const Search& search_;
    std::unique_ptr<X[]> exact_;
    std::vector<float> rounded_;     // the samples in float32, where X is double
    LineVector<uint16_t> prepared_;  // and as the filter reads them, where it wants them rewritten
    std::vector<TileState> states_;
    std::vector<Shortlist> lists_;
    std::vector<Candidate> candidates_;
    std::vector<float> floors_;
    int capacity_;
  };

 private:
  // Centre, scale and order of the targets.
  struct Frame {
    std::vector<double> centre;
    double h_centre = 0, scale = 1;
  };
  Frame frame(int threads) const;
  void pack(const Frame& frame, int threads);
  double pack_group(int64_t g, const Frame& frame);

  const T* y_;
  const T* h_;
  int64_t k_;
  float huge_norm_ = 0;  // of samples beyond which nothing is filtered
  const Isa& isa_;
  Panels panels_;
  std::vector<int64_t> order_;  // of the packed targets: their numbers, by falling height
  std::vector<float> packed_y_, packed_h_, tops_, bounds_;
  LineVector<uint16_t> tiles_;
};

// Numbers a prepared tile takes.
OTGEN_HD int64_t prepared_size(int64_t d) { return ceil_div(d, kDepth) * kDepth * kTile; }

// To bfloat16, nearest, ties to even; v is finite and far from overflow.
OTGEN_HD uint16_t to_bfloat16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return uint16_t((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

OTGEN_HD float from_bfloat16(uint16_t b) {
  const uint32_t bits = uint32_t(b) << 16;
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

// A block holds this many samples at most; enough to read a chunk of targets from L2 many times.
constexpr int kMaxTiles = 8;

// Tiles per block so that every thread gets several blocks.
OTGEN_HD int tiles_per_block(int64_t n, int threads) {
  const int64_t fair = ceil_div(n, int64_t(kTile) * threads * 4);
  return int(fair < 1 ? 1 : fair > kMaxTiles ? kMaxTiles : fair);
}

}  // namespace otgen
