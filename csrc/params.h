// One plain struct per kernel: inputs first, outputs last. T is the type of targets and heights, float or double.
// All arrays are dense and row-major; shapes stand beside them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "common.h"

namespace otgen {

class SiteTree;

enum class Source : int32_t { kUniform = 0, kNormal = 1 };

constexpr int kTurn = 32;        // samples of a stream with images, before as many of each kind of image
constexpr int kMostImages = 16;  // a sample and its images

// Which samples a kernel makes: number first, first + 1, ... of the stream that `seed` names.
struct Stream {
  Source source;
  uint64_t seed;
  int64_t first;
  const uint32_t* directions;  // (d, 32) Sobol direction numbers, bits reversed; null for random samples
  int images;  // by turns kTurn samples and as many of each kind of image; a power of 2, at most kMostImages
};

struct SampleParams {
  Stream stream;
  int64_t n, d;
  Run run;
  float* x;  // (n, d)
};

template <class T>
struct AssignParams {
  const T* x;  // (n, d)
  const T* y;  // (m, d)
  const T* h;  // (m,)
  int64_t n, m, d;
  Run run;
  int64_t* winner;  // (n,)
  T* score;         // (n,)
};

template <class T>
struct TopkParams {
  const T* x;  // (n, d)
  const T* y;  // (m, d)
  const T* h;  // (m,)
  int64_t n, m, d, k;
  Run run;
  int64_t* index;  // (n, k)
  T* score;        // (n, k)
};

template <class T>
struct ReassignParams {
  const T* x;            // (n, d)
  const T* y;            // (m, d)
  const T* h;            // (m,), the new ones
  const double* rise;    // (m,), by how much each is above the old one
  const int64_t* index;  // (n, k), the best under the old ones
  const T* score;        // (n, k), in falling order
  const double* norm;    // (n,), of x
  double highest_rise;
  double slack_score, slack_norm,
      slack;  // what a score's size, a sample's norm and 1 add to the rounding of two scores
  int64_t n, m, d, k;
  Run run;
  int64_t* winner;  // (n,), -1 where that is not sure
  T* new_score;     // (n,)
};

template <class T>
struct MeasureParams {
  const T* y;  // (m, d)
  const T* h;  // (m,)
  Stream stream;
  int64_t n, m, d;
  Run run;
  int64_t* counts;   // (m,), zero on entry
  double* mean_u;    // (1,)
  int32_t* pairs;    // (n, 2) best and second-best target of every sample, or null
  T* gaps;           // (n,) their difference in score, with pairs
  int64_t* moments;  // (m, d) sums of the samples of each cell in units of 1 / kMomentScale, zero on entry, or null
};

// Sums of samples are kept as integers so that they do not depend on the order of summation. The unit leaves room for
// 2^28 samples of 7 standard deviations in one cell.
constexpr double kMomentScale = 4294967296.0;  // 2^32

template <class T>
struct SoftAssignParams {
  const T* x;  // (n, d)
  const T* y;  // (m, d)
  const T* h;  // (m,)
  int64_t n, m, d;
  double eps;
  Run run;
  T* value;    // (n,) eps * logsumexp(score / eps)
  T* columns;  // (m,) sums over the samples of the softmax
};

// Gradients of soft_assign, given those of its two outputs.
template <class T>
struct SoftAssignGradParams {
  const T* x;             // (n, d)
  const T* y;             // (m, d)
  const T* h;             // (m,)
  const T* grad_value;    // (n,)
  const T* grad_columns;  // (m,)
  int64_t n, m, d;
  double eps;
  Run run;
  T* grad_x;  // (n, d)
  T* grad_y;  // (m, d)
  T* grad_h;  // (m,)
};

// Products on the matrix unit: c += a b^T, n times, by single warps or by groups of four.
struct RoundingParams {
  const uint16_t* a;  // (n, 16, k) bfloat16
  const uint16_t* b;  // (n, 8, k) bfloat16
  int64_t n, k;       // k a multiple of 16
  bool groups;
  Run run;
  float* c;  // (n, 16, 8)
};

struct LaplacianParams {
  const int32_t* pairs;    // (p, 2)
  const float* gaps;       // (p,)
  const float* bandwidth;  // (m,) of each cell; a sample uses that of its best target
  int64_t p, m;
  double scale;  // a sample adds scale * share / bandwidth to its edge
  bool local;    // shares of its sides go by the inverse squares of their bandwidths; else they are halves
  int threads;
  int64_t* edges;   // room for (p, 2): i < j, sorted
  double* weights;  // room for (p,)
  int64_t* count;   // (1,) edges found
};

// Where the source of a power diagram lives: the uniform one on an interval (count 2: its ends), on a convex polygon
// (its corners, counter-clockwise) or on a box (count 2: its lowest and highest corner); the normal one on something of
// the same kind that holds all of its mass.
struct PowerDomain {
  Source source;
  const double* corners;  // (count, d)
  int64_t count;
};

struct Facet {
  int64_t i, j;
  double measure;
};

// Ends a diagram some cell of which has less than `least`.
struct SmallCell : std::runtime_error {
  SmallCell() : std::runtime_error("power_diagram: a cell has less than it must") {}
};

// Exact integrals of the source over the power cells of the tree's targets with the heights it was given.
struct PowerDiagramParams {
  const SiteTree& tree;
  PowerDomain domain;
  Run run;
  const int64_t* near;  // (near_count, 2): targets that are likely to be neighbours
  int64_t near_count;
  const double* least;          // (m,): a cell with less ends it all with SmallCell; null for none
  double* measures;             // (m,): of 1
  double* first;                // (m, d): of x
  double* second;               // (m,): of |x|^2
  std::vector<int64_t>& pairs;  // two a facet, i < j
  std::vector<double>& facets;  // integral of the density over each
};

// The cells of some targets as lists of corners and facets.
struct PowerCellsParams {
  const SiteTree& tree;
  PowerDomain domain;
  const int64_t* which;  // (count,): targets
  int64_t count;
  std::vector<int64_t>& sizes;       // corners and facets of each cell
  std::vector<double>& corners;      // d each
  std::vector<int64_t>& labels;      // of each facet: the target behind it, or -1 - k for side k of the domain
  std::vector<int64_t>& loop_sizes;  // of each facet in three dimensions: how many corners it has
  std::vector<int64_t>& loops;       // and which of its cell's
};

}  // namespace otgen
