// The score, and the order of scores: the one definition that CPU and GPU share.
#pragma once

#include "common.h"

namespace otgen {

// <x, y> + h as float64 evaluates it: from h, one coordinate after the other, multiply and add rounded separately.
// Every winner is decided by this number. (Built with contraction off; the product of two float32 is exact anyway.)
template <class X, class Y>
OTGEN_HD double score(const X* x, const Y* y, Y h, int64_t d) {
  double s = h;
  for (int64_t k = 0; k < d; ++k) s += double(x[k]) * double(y[k]);
  return s;
}

// The same for kMany samples and their targets: several sums hide the latency of one.
constexpr int kMany = 4;
template <class X, class Y>
OTGEN_HD void scores(const X* const* x, const Y* const* y, const Y* h, int64_t d, double* s) {
  double sum[kMany];
  for (int i = 0; i < kMany; ++i) sum[i] = h[i];
  for (int64_t k = 0; k < d; ++k)
    for (int i = 0; i < kMany; ++i) sum[i] += double(x[i][k]) * double(y[i][k]);
  for (int i = 0; i < kMany; ++i) s[i] = sum[i];
}

// The larger score is better, and of equal ones that of the smaller index.
OTGEN_HD bool better(double s, int64_t j, double than, int64_t than_j) { return s > than || (s == than && j < than_j); }

}  // namespace otgen
