// Scores of a block of rows of a matrix, one row a thread: the plain way, right by its order of operations.
#pragma once

#include <type_traits>

#include "device.h"

namespace otgen {

constexpr int kRows = 128;    // threads of a block, one row each
constexpr int kColumns = 32;  // rows of the other matrix that are scored at a time
constexpr int kDepth = 32;    // coordinates that lie in shared memory at a time

// Padded so that neither the rows' nor the columns' stores meet in one bank, and so that columns can be read 16 bytes
// at a time.
template <class Real>
struct RowsMemory {
  static constexpr int kStride = kColumns + 16 / int(sizeof(Real));
  Real b[kDepth][kStride];
  Real a[kDepth][kRows + 1];
};

// Reads coordinates [first, first + depth) of `count` rows of v, (count, d), into columns of `to`; rows beyond are
// zero.
template <class V, class Real, int kWidth>
OTGEN_DEVICE void load_columns(const V* v, int count, int64_t d, int64_t first, int depth, int rows,
                               Real (*to)[kWidth]) {
  for (int i = thread_index(); i < rows * kDepth; i += kRows) {
    const int r = i / kDepth, c = i % kDepth;
    if (c < depth) to[c][r] = r < count ? Real(v[r * d + first + c]) : Real(0);
  }
}

// Calls f(c, depth) for coordinates 0 <= c < depth of one chunk after the other, which lie in memory.a and memory.b.
// All threads of the block call it.
template <class Real, class A, class B, class F>
OTGEN_DEVICE void for_chunks(const A* a, int a_count, const B* b, int b_count, int64_t d, F&& f) {
  RowsMemory<Real>& memory = shared<RowsMemory<Real>>();
  for (int64_t first = 0; first < d; first += kDepth) {
    const int depth = at_most(d - first, kDepth);
    barrier();
    load_columns(a, a_count, d, first, depth, kRows, memory.a);
    load_columns(b, b_count, d, first, depth, kColumns, memory.b);
    barrier();
    f(memory, depth);
  }
}

// Adds to s[t] the products of this thread's row of a, (a_count, d), with rows t of b, (b_count, d), coordinate by
// coordinate, rounded as score.h does; the product of two float32 is exact in float64, so there one operation will do.
template <class A, class B>
OTGEN_DEVICE void add_products(const A* a, int a_count, const B* b, int b_count, int64_t d, double* s) {
  constexpr bool kExactProducts = std::is_same<A, float>::value && std::is_same<B, float>::value;
  for_chunks<double>(a, a_count, b, b_count, d, [&](const RowsMemory<double>& memory, int depth) {
    for (int c = 0; c < depth; ++c) {
      const double v = memory.a[c][thread_index()];
#pragma unroll
      for (int t = 0; t < kColumns; ++t)
        s[t] = kExactProducts ? fma(v, memory.b[c][t], s[t]) : s[t] + v * memory.b[c][t];
    }
  });
}

// Likewise in float32, every chunk by itself first, and what adding it to s lost with the next one (Kahan), or in many
// dimensions that would be most of the error.
OTGEN_DEVICE void add_products(const float* a, int a_count, const float* b, int b_count, int64_t d, float* s) {
  float lost[kColumns] = {};
  for_chunks<float>(a, a_count, b, b_count, d, [&](const RowsMemory<float>& memory, int depth) {
    float part[kColumns] = {};
    for (int c = 0; c < depth; ++c) {
      const float v = memory.a[c][thread_index()];
#pragma unroll
      for (int t = 0; t < kColumns; t += 4) {
        float w[4];
        load_16(&memory.b[c][t], w);
#pragma unroll
        for (int u = 0; u < 4; ++u) part[t + u] = fmaf(v, w[u], part[t + u]);
      }
    }
#pragma unroll
    for (int t = 0; t < kColumns; ++t) {
      const float more = part[t] + lost[t], before = s[t];
      s[t] = before + more;
      lost[t] = more - (s[t] - before);
    }
  });
}

}  // namespace otgen
