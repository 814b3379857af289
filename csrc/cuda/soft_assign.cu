// soft_assign: eps * logsumexp(score / eps) of every sample, column sums of the softmax, and their gradients. A pass
// over targets with a thread for each sample finds the softmax's normalisation; passes with a thread for each sample or
// each target then sum what they need. Scores and exponentials are in the type of the numbers; so are sums of 32 of
// them, while longer ones are in float64. Sums over samples are kept in a few parts that are added last, in a fixed
// order, so that the result is the same every time. As on the CPU, a score has the largest of its sample taken off
// before it is divided by eps.
#include <cmath>
#include <limits>

#include "cuda.h"
#include "rows.h"
#include "search.h"

namespace otgen {
namespace {

// One slab of samples against all targets.
template <class T>
struct Soft {
  const T* x;  // (n, d)
  const T* y;  // (m, d)
  const T* h;  // (m,)
  int64_t n, m, d;
  double eps;
  T rate;                 // 1 / eps, or the largest number
  const T* grad_value;    // (n,)
  const T* grad_columns;  // (m,) or null
  T* largest;             // (n,) largest score of a sample
  T* unit;                // (n,) one over the sum of exp((score - largest) / eps)
  T* mean;                // (n,) of grad_columns under the softmax
  T* value;               // (n,)
  int64_t parts;          // of the sums over samples
  double* column_sums;    // (parts, m)
  double* gradient_x;     // (d, n)
  double* gradient_y;     // (parts, d, m)
};

// Work space of both directions.
template <class T>
struct SoftSpace {
  int64_t slab, parts;
  T *largest, *unit, *mean;
  double *column_sums, *gradient_x = nullptr, *gradient_y = nullptr;

  SoftSpace(int64_t n, int64_t m, int64_t d, bool gradients, Space& space)
      : slab(slab_rows(n, 8 * (d + 4), m * d)), parts(std::max<int64_t>(1, kManyBlocks / ceil_div(m, kRows))) {
    largest = space.take<T>(slab), unit = space.take<T>(slab), mean = space.take<T>(slab);
    column_sums = space.take<double>(parts * m);
    if (!gradients) return;
    gradient_x = space.take<double>(slab * d);
    gradient_y = space.take<double>(parts * m * d);
  }
};

// Heights to begin scores with, of targets j, j + 1, ..., as far as there are any.
template <class T>
OTGEN_DEVICE void begin_scores(const Soft<T>& p, int64_t j, int columns, T* s) {
#pragma unroll
  for (int t = 0; t < kColumns; ++t) s[t] = t < columns ? p.h[j + t] : T(0);
}

template <class T>
OTGEN_KERNEL(kRows)
softmax_kernel(Soft<T> p) {
  const int64_t first = block_index() * kRows, i = first + thread_index();
  const int rows = at_most(p.n - first, kRows);
  T largest = T(-INFINITY);
  double sum = 0, mean = 0;
  for (int64_t j = 0; j < p.m; j += kColumns) {
    const int columns = at_most(p.m - j, kColumns);
    T s[kColumns], top = largest;
    begin_scores(p, j, columns, s);
    add_products(p.x + first * p.d, rows, p.y + j * p.d, columns, p.d, s);
#pragma unroll
    for (int t = 0; t < kColumns; ++t)
      if (t < columns && s[t] > top) top = s[t];
    if (top > largest) {
      const double shrink = std::exp((double(largest) - double(top)) * double(p.rate));
      sum *= shrink, mean *= shrink, largest = top;
    }
    T part = 0, weighted = 0;
#pragma unroll
    for (int t = 0; t < kColumns; ++t) {
      if (t >= columns) continue;
      const T e = std::exp((s[t] - largest) * p.rate);
      part += e;
      if (p.grad_columns != nullptr) weighted += e * p.grad_columns[j + t];
    }
    sum += double(part), mean += double(weighted);
  }
  if (i >= p.n) return;
  p.largest[i] = largest, p.unit[i] = T(1 / sum), p.mean[i] = T(mean / sum);
  if (p.value != nullptr) p.value[i] = T(double(largest) + p.eps * std::log(sum));
}

// What the softmax gives sample i of a target with this score.
template <class T>
OTGEN_DEVICE T share(const Soft<T>& p, int64_t i, T score) {
  return std::exp((score - p.largest[i]) * p.rate) * p.unit[i];
}

// Part `block % parts` of the samples, in whole tiles, for the kernels with a thread for each target.
template <class T, class F>
OTGEN_DEVICE void for_samples_of_part(const Soft<T>& p, int64_t first_target, F&& f) {
  const int rows = at_most(p.m - first_target, kRows);
  const int64_t j = first_target + thread_index();
  for (int64_t i = block_index() % p.parts * kColumns; i < p.n; i += p.parts * kColumns) {
    const int columns = at_most(p.n - i, kColumns);
    T s[kColumns];
#pragma unroll
    for (int t = 0; t < kColumns; ++t) s[t] = j < p.m ? p.h[j] : T(0);
    add_products(p.y + first_target * p.d, rows, p.x + i * p.d, columns, p.d, s);
    f(i, columns, s);
  }
}

template <class T>
OTGEN_KERNEL(kRows)
column_kernel(Soft<T> p) {
  const int64_t first = block_index() / p.parts * kRows, j = first + thread_index();
  double sum = 0;
  for_samples_of_part(p, first, [&](int64_t i, int columns, const T* s) {
    T part = 0;
#pragma unroll
    for (int t = 0; t < kColumns; ++t)
      if (t < columns) part += share(p, i + t, s[t]);
    sum += double(part);
  });
  if (j < p.m) p.column_sums[block_index() % p.parts * p.m + j] += sum;
}

// With p_ij the softmax, v_i and c_j the incoming gradients, r_i = sum_k p_ik c_k: the gradient of score ij is
// q_ij = p_ij (v_i + (c_j - r_i) / eps), and h_j, x_i, y_j take its sums.
template <class T>
OTGEN_DEVICE T gradient_of_score(const Soft<T>& p, int64_t i, int64_t j, T score) {
  const T part = share(p, i, score);
  if (part == 0) return 0;  // nothing times what a small eps may make infinite
  return part * (p.grad_value[i] + (p.grad_columns[j] - p.mean[i]) * p.rate);
}

// Adds the sum of q[t] times row t of b, (count, d), to this thread's column of `out`, (d, stride), if it has one. All
// threads of the block call it.
template <class T>
OTGEN_DEVICE void add_combination(const T* q, const T* b, int count, int64_t d, double* out, int64_t stride) {
  RowsMemory<T>& memory = shared<RowsMemory<T>>();
  for (int64_t first = 0; first < d; first += kDepth) {
    const int depth = at_most(d - first, kDepth);
    barrier();
    load_columns(b, count, d, first, depth, kColumns, memory.b);
    barrier();
    if (out == nullptr) continue;
    for (int c = 0; c < depth; ++c) {
      T sum = 0;
#pragma unroll
      for (int t = 0; t < kColumns; ++t) sum += q[t] * memory.b[c][t];
      out[(first + c) * stride] += double(sum);
    }
  }
}

template <class T>
OTGEN_KERNEL(kRows)
gradient_x_kernel(Soft<T> p) {
  const int64_t first = block_index() * kRows, i = first + thread_index();
  const int rows = at_most(p.n - first, kRows);
  for (int64_t j = 0; j < p.m; j += kColumns) {
    const int columns = at_most(p.m - j, kColumns);
    T s[kColumns];
    begin_scores(p, j, columns, s);
    add_products(p.x + first * p.d, rows, p.y + j * p.d, columns, p.d, s);
#pragma unroll
    for (int t = 0; t < kColumns; ++t) s[t] = i < p.n && t < columns ? gradient_of_score(p, i, j + t, s[t]) : T(0);
    add_combination(s, p.y + j * p.d, columns, p.d, i < p.n ? p.gradient_x + i : nullptr, p.n);
  }
}

template <class T>
OTGEN_KERNEL(kRows)
gradient_y_kernel(Soft<T> p) {
  const int64_t first = block_index() / p.parts * kRows, j = first + thread_index(), part = block_index() % p.parts;
  double total = 0;
  for_samples_of_part(p, first, [&](int64_t i, int columns, T* s) {
    T sum = 0;
#pragma unroll
    for (int t = 0; t < kColumns; ++t) {
      s[t] = j < p.m && t < columns ? gradient_of_score(p, i + t, j, s[t]) : T(0);
      sum += s[t];
    }
    total += double(sum);
    add_combination(s, p.x + i * p.d, columns, p.d, j < p.m ? p.gradient_y + part * p.d * p.m + j : nullptr, p.m);
  });
  if (j < p.m) p.column_sums[part * p.m + j] += total;
}

// to[r, c] = sum over parts of from[part, c, r].
template <class T>
struct Collect {
  const double* from;  // (parts, columns, rows)
  T* to;               // (rows, columns)
  int64_t parts, rows, columns;
};

template <class T>
OTGEN_KERNEL(kRows)
collect_kernel(Collect<T> p) {
  const int64_t i = block_index() * kRows + thread_index();
  if (i >= p.rows * p.columns) return;
  const int64_t r = i % p.rows, c = i / p.rows;
  double total = 0;
  for (int64_t part = 0; part < p.parts; ++part) total += p.from[(part * p.columns + c) * p.rows + r];
  p.to[r * p.columns + c] = T(total);
}

template <class T>
void collect(const Collect<T>& p, const Run& run) {
  launch("soft_assign", collect_kernel<T>, ceil_div(p.rows * p.columns, kRows), kRows, 0, run, p);
}

template <class T, class P>
Soft<T> first_slab(const P& p, const SoftSpace<T>& own) {
  Soft<T> soft{};
  soft.x = p.x, soft.y = p.y, soft.h = p.h, soft.m = p.m, soft.d = p.d, soft.eps = p.eps;
  soft.rate = T(std::min(1 / p.eps, double(std::numeric_limits<T>::max())));
  soft.largest = own.largest, soft.unit = own.unit, soft.mean = own.mean;
  soft.parts = own.parts, soft.column_sums = own.column_sums;
  soft.gradient_x = own.gradient_x, soft.gradient_y = own.gradient_y;
  return soft;
}

template <class T>
void run_rows(void (*kernel)(Soft<T>), const Soft<T>& p, const Run& run) {
  launch("soft_assign", kernel, ceil_div(p.n, kRows), kRows, sizeof(RowsMemory<T>), run, p);
}

template <class T>
void run_targets(void (*kernel)(Soft<T>), const Soft<T>& p, const Run& run) {
  launch("soft_assign", kernel, ceil_div(p.m, kRows) * p.parts, kRows, sizeof(RowsMemory<T>), run, p);
}

}  // namespace

template <class T>
void soft_assign_cuda(const SoftAssignParams<T>& p) {
  const OnDevice device(p.run);
  Space space(p.run.space);
  const SoftSpace<T> own(p.n, p.m, p.d, false, space);
  fill_zero(own.column_sums, size_t(own.parts * p.m) * sizeof(double), p.run);
  Soft<T> soft = first_slab<T>(p, own);
  for (int64_t first = 0; first < p.n; first += own.slab) {
    soft.x = p.x + first * p.d, soft.value = p.value + first;
    soft.n = std::min(own.slab, p.n - first);
    run_rows(softmax_kernel<T>, soft, p.run);
    run_targets(column_kernel<T>, soft, p.run);
  }
  collect<T>({own.column_sums, p.columns, own.parts, p.m, 1}, p.run);
}

template <class T>
void soft_assign_grad_cuda(const SoftAssignGradParams<T>& p) {
  const OnDevice device(p.run);
  Space space(p.run.space);
  const SoftSpace<T> own(p.n, p.m, p.d, true, space);
  fill_zero(own.column_sums, size_t(own.parts * p.m) * sizeof(double), p.run);
  fill_zero(own.gradient_y, size_t(own.parts * p.m * p.d) * sizeof(double), p.run);
  Soft<T> soft = first_slab<T>(p, own);
  soft.grad_columns = p.grad_columns;
  for (int64_t first = 0; first < p.n; first += own.slab) {
    soft.x = p.x + first * p.d, soft.grad_value = p.grad_value + first;
    soft.n = std::min(own.slab, p.n - first);
    fill_zero(own.gradient_x, size_t(soft.n * p.d) * sizeof(double), p.run);
    run_rows(softmax_kernel<T>, soft, p.run);
    run_rows(gradient_x_kernel<T>, soft, p.run);
    run_targets(gradient_y_kernel<T>, soft, p.run);
    collect<T>({own.gradient_x, p.grad_x + first * p.d, 1, soft.n, p.d}, p.run);
  }
  collect<T>({own.column_sums, p.grad_h, own.parts, p.m, 1}, p.run);
  collect<T>({own.gradient_y, p.grad_y, own.parts, p.m, p.d}, p.run);
}

template <class T>
int64_t soft_assign_space(int64_t n, int64_t m, int64_t d) {
  Space space(nullptr);
  SoftSpace<T>(n, m, d, false, space);
  return space.size();
}

template <class T>
int64_t soft_assign_grad_space(int64_t n, int64_t m, int64_t d) {
  Space space(nullptr);
  SoftSpace<T>(n, m, d, true, space);
  return space.size();
}

template void soft_assign_cuda(const SoftAssignParams<float>&);
template void soft_assign_cuda(const SoftAssignParams<double>&);
template void soft_assign_grad_cuda(const SoftAssignGradParams<float>&);
template void soft_assign_grad_cuda(const SoftAssignGradParams<double>&);
template int64_t soft_assign_space<float>(int64_t, int64_t, int64_t);
template int64_t soft_assign_space<double>(int64_t, int64_t, int64_t);
template int64_t soft_assign_grad_space<float>(int64_t, int64_t, int64_t);
template int64_t soft_assign_grad_space<double>(int64_t, int64_t, int64_t);

}  // namespace otgen
