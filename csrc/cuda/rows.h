// Scores in float64, one row of a matrix per thread: the plain way, which is right by its order of operations.
#pragma once

#include <type_traits>

#include "device.h"

namespace otgen {

constexpr int kRows = 128;    // threads of a block, one row each
constexpr int kColumns = 32;  // rows of the other matrix that are scored at a time
constexpr int kDepth = 32;    // coordinates that lie in shared memory at a time

// Padded so that neither the rows' nor the columns' stores meet in one bank.
struct RowsMemory {
  double a[kDepth][kRows + 1];
  double b[kDepth][kColumns + 2];
};

// s + a b, rounded as score.h does; the product of two float32 is exact in float64, so there one operation will do.
template <bool kExactProducts>
OTGEN_DEVICE double multiply_add(double a, double b, double s) {
  return kExactProducts ? fma(a, b, s) : s + a * b;
}

// Reads coordinates [first, first + depth) of `count` rows of v, (count, d), into columns of `to`; rows beyond are
// zero.
template <class V, int kWidth>
OTGEN_DEVICE void load_columns(const V* v, int count, int64_t d, int64_t first, int depth, int rows,
                               double (*to)[kWidth]) {
  for (int i = thread_index(); i < rows * kDepth; i += kRows) {
    const int r = i / kDepth, c = i % kDepth;
    if (c < depth) to[c][r] = r < count ? double(v[r * d + first + c]) : 0.0;
  }
}

// Adds to s[t] the products of this thread's row of a, (a_count, d), with rows t of b, (b_count, d), coordinate by
// coordinate. All threads of the block call it.
template <class A, class B>
OTGEN_DEVICE void add_products(const A* a, int a_count, const B* b, int b_count, int64_t d, double* s) {
  constexpr bool kExactProducts = std::is_same<A, float>::value && std::is_same<B, float>::value;
  RowsMemory& memory = shared<RowsMemory>();
  for (int64_t first = 0; first < d; first += kDepth) {
    const int depth = at_most(d - first, kDepth);
    barrier();
    load_columns(a, a_count, d, first, depth, kRows, memory.a);
    load_columns(b, b_count, d, first, depth, kColumns, memory.b);
    barrier();
    for (int c = 0; c < depth; ++c) {
      const double v = memory.a[c][thread_index()];
#pragma unroll
      for (int t = 0; t < kColumns; ++t) s[t] = multiply_add<kExactProducts>(v, memory.b[c][t], s[t]);
    }
  }
}

}  // namespace otgen
