// The search for the best targets of samples on the GPU, shared by assign, topk and measure.
//
// Plainly: score every target in float64 as score.h says, keep the best (search.cu). Or behind a filter, which rules
// out nearly all targets with a proven bound on its error, so that few are scored (filter.cu). The answers are the
// same.
#pragma once

#include <algorithm>
#include <chrono>

#include "../score.h"
#include "device.h"

namespace otgen {

enum class Filter { kNone, kFloat32, kBfloat16, kWgmma };

// Lays out a work space: with a null base it only measures.
class Space {
 public:
  explicit Space(void* base) : base_(static_cast<char*>(base)) {}

  template <class V>
  V* take(int64_t count) {
    char* at = base_ + size_;
    size_ += ceil_div(count * int64_t(sizeof(V)), kAlign) * kAlign;
    return reinterpret_cast<V*>(at);
  }
  int64_t size() const { return size_; }

 private:
  static constexpr int64_t kAlign = 256;
  char* base_;
  int64_t size_ = 0;
};

// A matrix rounded for the filter, in the order in which it reads it, with what is known of the rounding.
struct Packed {
  void* words;      // (ceil(rows / 128), chunks, 128 * depth of a chunk), see products.h
  float* norm;      // (rows,) no smaller than |v| and |v^|
  float* residual;  // (rows,) no smaller than |v - v^|
  float* original;  // (rows,) no smaller than |v| before it was centred
};

// Targets as the search reads them.
template <class T>
struct Targets {
  const T* y;  // (m, d)
  const T* h;  // (m,)
  int64_t m, d;
  Filter filter;
  Packed packed;
  double* centre;  // (d + 1,) means of y and, last, of h
  float* heads;    // (tiles, kHead) heights and bounds of a tile of targets
};

// The filter that was chosen.
Filter chosen_filter();

// What the search needs of the targets: lays it out, then fills it.
template <class T>
Targets<T> lay_out_targets(const T* y, const T* h, int64_t m, int64_t d, Space& space);
template <class T>
void pack_targets(const Targets<T>& targets, const Run& run);

// And of at most `rows` samples at a time.
Packed lay_out_samples(int64_t rows, int64_t d, Filter filter, Space& space);

// Samples to be searched, and the k best of each, best first.
template <class X>
struct Samples {
  const X* x;  // (rows, d)
  int64_t rows, k;
  Packed packed;
  int64_t* index;  // (rows, k)
  double* score;   // (rows, k)
};

template <class X, class T>
void search(const Samples<X>& samples, const Targets<T>& targets, const Run& run);

// The samples of one slab, which bounds the work space and the time between polls: a multiple of a block's samples,
// with `bytes` and `work` products for each.
int64_t slab_rows(int64_t n, int64_t bytes, int64_t work);

// A list of the k best so far, in falling order.
struct List {
  int64_t* index;
  double* score;
  int64_t k;
  int64_t size;

  OTGEN_DEVICE_MEMBER bool wants(double s, int64_t j) const {
    return size < k || better(s, j, score[k - 1], index[k - 1]);
  }
  OTGEN_DEVICE_MEMBER void insert(double s, int64_t j) {
    int64_t at = size < k ? size++ : k - 1;
    for (; at > 0 && better(s, j, score[at - 1], index[at - 1]); --at)
      score[at] = score[at - 1], index[at] = index[at - 1];
    score[at] = s, index[at] = j;
  }
};

// Between slabs: asks the caller whether to go on, with one slab in flight. Does nothing where there is nobody to ask.
class Pace {
 public:
  void step(const Run& run, double done);

 private:
  Mark marks_[2];
  int64_t slab_ = 0;
  std::chrono::steady_clock::time_point polled_ = std::chrono::steady_clock::now();
};

}  // namespace otgen
