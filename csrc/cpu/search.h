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
// The filter may read samples about a point c of their middle: <x, y'> + h' = <x - c, y'> + (h' + <c, y'>), which
// halves the error where samples lie in the unit cube. All of the above then holds with x' = x - c for x and h'' = h' +
// <c, y'> for h', but for two small terms: x' carries the rounding of x, u |x|, beside its own, u |x'|, both of which
// are counted to |x - x^|; and the float64 score's error is relative to |x|, so |x| times the largest ratio of that
// error's factor to beta is added to |x'|.
//
// Targets are packed by falling height (h'' where there is one), so that the heights of a group are nearly equal. The
// matrix unit's filter adds the largest of them to the largest product: that is at least the largest score, and at most
// spread_g, the range of the group's heights, above it. So its lower bounds are E_g + spread_g below the maximum, its
// upper ones E_g above. A filter keeps the maxima of a span of groups before it looks at them: with E, spread the
// largest in the span, the best (second) of the maxima less E + spread is a lower bound for the best (second) of all,
// and groups whose maximum is below the floor less E are dropped without a look at their own E_g.
//
// The filter on whole numbers, bytes or shorts, rounds x' to x^ = s q and y' to y^ = (v / s) r; s is the same for all
// samples, v for all targets of a group. Heights become h^ = top + v k, with k whole. A sum of products and the k
// beside it is exact in integers of 32 bits: |k| <= 2^24, for which v is large enough; bytes, of at most 127 in
// magnitude and q stored as q + 128, add up to less than 2^30 where d <= kMostBytes; shorts are roundings of vectors of
// norm 2^15 at most, so that no part of their sum is over (2^15 + sqrt(d) / 2)^2, which is 1.13 2^30 where d <=
// kMostShorts. (Where |x| is infinite sums may be anything: nothing is dropped.) The filter's maximum is v times the
// largest sum plus top, rounded three times: u each of |x^||y^| + |h^ - top| and u of the result. So with 4 u (|h^| +
// |x^||y^|) for the rounding of the sums all of the above holds, and the first line of the bound is wide enough.
// Samples too far from the middle are cut off, or for shorts come nearer, which |x - x^| measures like any other
// rounding. On the matrix unit bytes have a sign, q needs no 128, and all k are 0: it adds heights as it does to
// bfloat16.
//
// Images of a sample differ from it in the signs of coordinates of x', so they have its x^ but for signs, |x'| and |x -
// x^|. Read about c, their scores are h'' plus sums of the same products: a Walsh-Hadamard transform of the sums over
// some blocks of coordinates gives all of them (isa/images.inl). That is one more order in which to add d products and
// a height, exact in integers; where blocks have no coordinate, what is added is zero, and exact. float32 reads samples
// about c too then, so with h'' for h'. The norm |x| is at most |x'| + |c|.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "../common.h"
#include "../params.h"

namespace otgen {

struct Isa;
struct PackedNorms;
struct Pruner;
class Pruning;

constexpr int kTile = 32;                 // samples that are scored together, on the lanes of vector registers
constexpr int kMaxGroup = 16;             // targets of a group, at most
constexpr int kDepth = 32;                // coordinates of one step of the bfloat16 matrix unit
constexpr int64_t kTileWords = 16;        // words in the row of one of its tiles
constexpr int64_t kMostBytes = 1 << 14;   // coordinates whose products of bytes add up to less than 2^30
constexpr int64_t kMostShorts = 1 << 24;  // likewise of shorts, to less than 1.13 2^30
constexpr int kSpan = 32;                 // groups that share a bound
constexpr int kChunk = 512;               // groups whose maxima a filter keeps before it looks at them, at most
constexpr int kApart = kChunk + 1;        // their room: by a power of two all tiles would meet in one set of a cache
constexpr int kListed = 16;               // groups listed for a sample, on average, before they are scored
constexpr int kTogether = 4;              // tiles that a filter takes at a time: a third of L1 at d = 64

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

// How the filter reads targets; whole numbers come last, bytes last of them.
enum class Packing {
  kFloat32,   // Panels::y
  kBfloat16,  // Panels::tiles
  kShorts,    // Panels::words
  kBytes,     // likewise
  kByteTiles  // likewise, by rows for the matrix unit
};

// A kind of whole numbers: how many of them are in a word of 32 bits.
enum class Whole { kShorts = 2, kBytes = 4 };

OTGEN_HD bool is_whole(Packing packing) { return packing >= Packing::kShorts; }

OTGEN_HD bool on_tiles(Packing packing) { return packing == Packing::kBfloat16 || packing == Packing::kByteTiles; }

OTGEN_HD Whole whole_of(Packing packing) { return packing >= Packing::kBytes ? Whole::kBytes : Whole::kShorts; }

// Words of d numbers; the matrix unit takes 16 at a time.
OTGEN_HD int64_t words_of(Packing packing, int64_t d) {
  const int64_t words = ceil_div(d, int64_t(whole_of(packing)));
  return packing == Packing::kByteTiles ? ceil_div(words, kTileWords) * kTileWords : words;
}

// What is added to those of samples: VNNI's instruction for bytes wants them without a sign.
OTGEN_HD constexpr int32_t zero_of(Whole whole) { return whole == Whole::kBytes ? 128 : 0; }

// The largest magnitude of bytes, or norm of shorts.
OTGEN_HD constexpr int32_t most_of(Whole whole) { return whole == Whole::kBytes ? 127 : 32767; }

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
  const float* y = nullptr;       // (groups, d, group), centred, scaled, rounded; zero past the last target; kMaxGroup
                                  // more numbers behind, so that whole vectors may be read
  const float* h = nullptr;       // (groups, group), likewise; -inf past the last target
  const float* lifted = nullptr;  // (groups, group): h'', where it reads samples with images; -inf past the last
  const uint16_t* tiles = nullptr;  // (groups even, ceil(d / kDepth), group, kDepth) bfloat16; the last again past it
  const int32_t* words = nullptr;   // (groups, words of d numbers, group); zero past the last; or, for the matrix unit,
                                    // (groups even, words / kTileWords, group, kTileWords) like `tiles`
  const int32_t* word_h = nullptr;  // (groups, group): h'' less that of `top`, in units, and what makes up for zero_of
  const float* unit = nullptr;      // (groups even,), with words: of their products
  const float* top = nullptr;       // (groups even,), with tiles or words: the largest h'' of each group, -inf past the
                                    // last
  Bound filter{}, single{};         // of the filter, and of float32 scores from `y`
  Bound span{};                     // the largest of `filter` in every kSpan groups
};

// A group that may hold one of the k best targets of a sample, by its number in the block.
struct Survivor {
  int32_t row, group;
  float upper;  // no target of the group scores above this
};

// What the filter lets through, of a block.
struct Survivors {
  std::vector<Survivor> list;  // `count` of them, and room
  int64_t count = 0;
  void* search = nullptr;                   // for the functions of this and of the tiles' states
  void (*full)(Survivors& self) = nullptr;  // makes room, for half of the list at least
};

// A sample, by its number in the block, and where its scores belong.
struct Place {
  int32_t row, slot;
};

// What the filter updates, for the samples of a tile.
struct TileState {
  alignas(64) float floor[kTile];                          // at most the k-th largest score; -inf at first
  alignas(64) float norm[kTile];                           // |x|, or |x'|, as the filter's bound wants it, rounded up
  alignas(64) float residual[kTile];                       // |x - x^|, rounded up
  float whole[kTile];                                      // |x|, rounded up
  int64_t k;                                               // targets wanted
  int32_t row;                                             // number of its first sample in the block
  Survivors* survivors;                                    // of the block
  void (*raise)(TileState& state, int lane, float lower);  // the floor, by a lower bound of another group
};

// Where samples lie: about `middle` (d,), most no farther from it than `reach` in any coordinate and `norm` in all. Any
// values are right, near ones are fast; but images (random.h) are in the middle.
struct Region {
  std::vector<float> middle;
  float reach, norm;
  int images = 1;  // a tile, and what follows it, in number
};

// A sample, by its number in a block, and a target that can be among its best.
struct Candidate {
  int64_t row;
  int64_t target;
};

// Reads tiles of samples against targets; T is the type of targets and heights, X, of a block, that of samples.
template <class T>
class Search {
 public:
  // Packs the targets; y and h are kept by reference.
  Search(const T* y, const T* h, int64_t m, int64_t d, int64_t k, int threads, Region region);

  const Panels& panels() const { return panels_; }
  int64_t k() const { return k_; }
  int64_t d() const { return panels_.d; }
  // Tiles of a block, so that every thread gets several blocks of n samples.
  int tiles_per_block(int64_t n, int threads) const;

  // The work space of one thread: room for a block of tiles.
  template <class X>
  class Block {
   public:
    Block(const Search& search, int tiles);
    Block(const Block&) = delete;  // its survivors know where it is

    // The samples of a tile, (d, kTile): written by the caller before `run`, which wants unused lanes zero.
    X* samples(int tile) { return exact_.get() + size_t(tile) * search_.d() * kTile; }

    // One of them after `run`, (d,).
    const X* row(int tile, int lane) const { return rows_.data() + size_t(tile * kTile + lane) * search_.d(); }

    // Finds the k best targets of every sample in the first `tiles` tiles, of the last of them in its first `lanes`.
    void run(int tiles, int lanes = kTile);

    const int64_t* index(int tile, int lane) const { return &best_index_[(tile * kTile + lane) * search_.k()]; }
    const double* score(int tile, int lane) const { return &best_score_[(tile * kTile + lane) * search_.k()]; }

   private:
    static void make_room(Survivors& survivors);
    static void raise_floor(TileState& state, int lane, float lower);
    void begin(int tile, int lanes);
    void drop_survivors();
    void sort_survivors();
    void score_survivors();
    void narrow(int32_t row, int32_t first, int32_t last);
    void score_candidates(const std::vector<Candidate>& pairs);
    void run_pruned(int tiles);
    void lay_out(int tile);
    void insert(int64_t row, int64_t target, double score);
    const float* rounded(int tile);
    const float* rounded_rows() const;
    const void* prepared(int tile);

    const Search& search_;
    std::unique_ptr<X[]> exact_;
    std::vector<X> rows_;                        // the samples, (d,) each
    std::vector<float> rounded_, rounded_rows_;  // both in float32, where X is double
    LineVector<char> prepared_;                  // and as the filter reads them, where it wants them rewritten
    LineVector<TileState> states_;
    std::vector<int64_t> best_index_;  // by sample: the k best scored so far, in falling order
    std::vector<double> best_score_;
    std::vector<int> scored_;                 // by sample: how many those are
    std::vector<std::vector<float>> lowers_;  // for k > 2, by sample: min-heap of the k largest lower bounds of groups
    Survivors survivors_;
    std::vector<int32_t> row_ends_, group_ends_;  // of what is sorted by sample, and by group from the first listed on
    int32_t first_group_ = 0;
    std::vector<int32_t> groups_;  // of the survivors, by sample
    std::vector<Place> places_;    // likewise, by group
    LineVector<float> scores_;     // (survivors, kMaxGroup) by sample
    std::vector<uint32_t> masks_;
    std::vector<Candidate> candidates_;
    std::shared_ptr<Pruning> pruning_;  // where targets are pruned; then the filter has nothing to do
    LineVector<float> maxima_;          // for the filter
  };

 private:
  // Centres of targets and heights, and their scale.
  struct Frame {
    std::vector<double> centre;
    double h_centre = 0, scale = 1;
  };
  Frame frame(int threads) const;
  void pack(const Frame& frame, int threads);
  void pack_group(int64_t g, const Frame& frame, double* raw);
  // By how much low precision moves the heights of a group, and its maxima lie above its scores.
  struct Coarse {
    double height = 0, spread = 0;
  };
  Coarse pack_tiles(int64_t g, const Frame& frame, const double* raw, int count, PackedNorms& norms);
  Coarse pack_words(int64_t g, const Frame& frame, const double* raw, int count, PackedNorms& norms);
  void lift(const Frame& frame, int threads);
  double lifted(int64_t j, const Frame& frame) const;

  const T* y_;
  const T* h_;
  int64_t k_;
  float huge_norm_ = 0;     // of samples beyond which nothing is filtered
  double whole_share_ = 0;  // of |x| in the norm that the filter's bound wants
  const Isa& isa_;
  const Region region_;
  const bool prepares_;        // whether the filter wants samples rewritten
  std::vector<float> middle_;  // about which samples are read
  double middle_norm_ = 0;
  float step_;  // of the whole numbers of samples
  Panels panels_;
  std::vector<int64_t> order_;  // of the packed targets: their numbers, by falling height
  std::vector<float> packed_y_, packed_h_, packed_lifted_, tops_, units_, bounds_, spans_;
  std::vector<double> lifted_, originals_;  // h'' by target; largest |y| 2^-a by group
  LineVector<uint16_t> tiles_;
  LineVector<int32_t> words_, word_h_;
  std::shared_ptr<const Pruner> pruner_;  // in few dimensions
};

// Bytes that a prepared tile of samples, or as many targets, take.
OTGEN_HD int64_t prepared_bytes(Packing packing, int64_t d) {
  const int64_t coordinate = packing == Packing::kFloat32    ? d * 4
                             : packing == Packing::kBfloat16 ? ceil_div(d, kDepth) * kDepth * 2
                                                             : words_of(packing, d) * 4;
  return coordinate * kTile;
}

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

}  // namespace otgen
