// The inner loops that exist once per instruction set, and the choice among them.
#pragma once

#include <limits>

#include "../prune.h"
#include "../search.h"

namespace otgen {

// Squared norms of the targets of a group, each with room for rounding.
struct PackedNorms {
  double y[kMaxGroup];                // in float32
  double residual[kMaxGroup];         // of what float32 lost
  double original[kMaxGroup];         // before centring
  double coarse[kMaxGroup];           // in bfloat16, or whole numbers
  double coarse_residual[kMaxGroup];  // of what that lost
};

// Numbers of coordinates.
struct Range {
  int64_t first = 1, last = std::numeric_limits<int64_t>::max();
};
constexpr Range kNone{1, 0};  // never

// Where only the best target is wanted fewer groups survive a crude filter than where more are, and where samples have
// images products, which are what it saves, are a small part.
struct Meant {
  Range best, more, images;
};

struct Isa {
  const char* name;
  int group;        // targets of one group, at most kMaxGroup
  Packing packing;  // of the targets, for `filter`
  Meant meant{};    // coordinates for which it is faster than `other`; bytes up to kMostBytes, shorts up to kMostShorts
  const Isa* other = nullptr;  // null where there is none
  // Group maxima of some prepared tiles, `bytes` apart, over groups [first, last), first a multiple of kSpan, at most
  // kChunk of them; lists what may win. `maxima` is room for (tiles, kTile, kApart).
  void (*filter)(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first, int64_t last,
                 TileState* states, float* maxima);
  // The same of one prepared tile and its images, whose states follow its own. `maxima` is room for
  // (images, kTile, kApart). May be null where `meant` says never.
  void (*filter_images)(const void* prepared, int images, const Panels& panels, int64_t first, int64_t last,
                        TileState* states, float* maxima) = nullptr;
  // Rewrites a tile, (d, kTile) at x, about the point `middle`, (d,), as `filter` reads it, prepared_bytes at out, in
  // steps of `step` where it reads whole numbers; gives the squared norm of each x - middle, and its squared distance
  // to what became of it. Null where the filter reads tiles as they are.
  void (*prepare)(const float* x, const float* middle, float step, int64_t d, void* out, double* squares,
                  double* residual_squares) = nullptr;
  // Scores some samples, rows of d numbers from x on, against the targets of a group in float32: those of a place are
  // the kMaxGroup numbers of its slot.
  void (*score_group)(const float* x, const Panels& panels, int64_t group, const Place* places, int64_t count,
                      float* scores);
  // From these scores of the groups listed for a sample: leaves in masks, of each group, the targets that can be among
  // the k best, and gives the floor, risen where k <= 2.
  float (*narrow)(const float* scores, const Panels& panels, float whole, const int32_t* groups, int64_t listed,
                  int64_t k, float floor, uint32_t* masks);
  // Positions in a list of targets, y (d, stride) and h (stride,), of those that do not lose by `margin` to k others
  // everywhere in a box, as far as some rivals show it; gives how many there are. `scores` is room for
  // (stride,), `kept` too.
  int64_t (*survivors)(const float* y, const float* h, int64_t stride, int64_t d, const float* centre,
                       const float* half, float margin, int64_t k, float* scores, int32_t* kept);
  // Which samples of a tile each of `count` targets of a list is among the k best of, or within `margin` of it:
  // masks (count,). `scores` is room for (count, kTile).
  void (*best_of)(const float* x, const float* y, const float* h, int64_t stride, int64_t count, int64_t d,
                  float margin, int64_t k, float* scores, uint32_t* masks);
  // Packs a group: its targets are the columns of raw, (d, kMaxGroup), which it centres, scales and rounds.
  void (*pack)(const double* raw, const double* centre, double scale, int64_t d, float* y, uint16_t* tiles,
               PackedNorms& norms);
  // Writes a group's first `count` targets as words, (words of d numbers, group), for samples in steps of `step`; gives
  // the unit of the products, at least `least`, the sum of the numbers of each target, and the squared norms of y^ and
  // of what it lost. Null where the filter does not read whole numbers.
  float (*pack_whole)(const double* raw, const double* centre, double scale, int64_t d, int count, double step,
                      double least, int32_t* words, int32_t* sums, PackedNorms& norms) = nullptr;
  // Squared norms of the samples of a tile.
  void (*norms)(const float* x, int64_t d, double* squares);
  // Makes the samples of one tile: numbers index, ..., index + kTile - 1 of the stream; index is a multiple of kTile.
  // `lanes` is (d, kTile): Sobol numbers of 0, ..., kTile - 1, used with stream.directions only.
  void (*sample)(const Stream& stream, const uint32_t* lanes, int64_t index, int64_t d, float* x);
  // Scores of a tile against one group of `count` targets, in the arithmetic of their type: out is (count, kTile).
  void (*scores_f32)(const float* x, const float* y, const float* h, int64_t count, int64_t d, float* out);
  void (*scores_f64)(const double* x, const double* y, const double* h, int64_t count, int64_t d, double* out);
  // v <- exp((v - shift) scale) for rows of kTile values, none of them above its shift.
  void (*exp_f32)(float* v, const float* shift, float scale, int64_t rows);
  void (*exp_f64)(double* v, const double* shift, double scale, int64_t rows);
  // Multiply-adds on registers alone, of the filter's kind; gives the number of operations.
  int64_t (*busy)(int64_t rounds);
};

extern const Isa kBaseline;
#if defined(__x86_64__)
extern const Isa kAvx2;
extern const Isa kAvx512;
// Made when they are first asked for: an initialiser in a file of newer instructions would run at import, anywhere.
const Isa& avx2_isa();
#if defined(OTGEN_VNNI)
const Isa& avx_vnni_isa();
const Isa& avx512_vnni_isa();
bool avx_vnni_present();  // asks the processor, as compilers cannot name it
#endif
#if defined(OTGEN_AMX)
const Isa& amx_isa();
const Isa& amx_int8_isa();
#if defined(OTGEN_EMULATE)
constexpr bool kTilesEmulated = true;  // emulate_tiles.h
#else
constexpr bool kTilesEmulated = false;
#endif
bool amx_permitted();  // asks the system, which must save the tiles of every thread from then on
#endif
#endif

// The fastest that this machine runs, or what the environment variable OTGEN_ISA names.
const Isa& isa();

// The one that finds the k best fastest in dimension d: in few dimensions low precision lets too many groups through,
// and most of the matrix unit's step of 32 coordinates would be zeros, so float32 takes over; in many bytes are too
// crude, and shorts take over, as they do for samples with images, which need sums by pairs of coordinates. Float32
// also does where only `floats` are wanted.
const Isa& isa_for(int64_t d, int64_t k, bool with_images, bool floats);

// Names of all that this machine runs, slowest first.
std::vector<const char*> available_isas();

// Chooses by name for the rest of the process; throws std::invalid_argument for one that is not available.
void set_isa(const char* name);

}  // namespace otgen
