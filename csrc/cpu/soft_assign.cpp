// soft_assign: eps * logsumexp(score / eps) of every sample, column sums of the softmax, and their gradients.
//
// Scores are divided by eps after the largest of the sample has been taken off: the difference of two close scores is
// exact, so a small eps magnifies no more than the rounding of the scores themselves, and overflows nothing.
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>

#include "cpu.h"
#include "threads.h"
#include "tiles.h"

namespace otgen {
namespace {

constexpr int kSoftGroup = 12;  // targets whose scores are held at a time: with a tile of samples, 1.5 KB of floats

template <class T>
void scores(const T* x, const T* y, const T* h, int64_t count, int64_t d, T* out) {
  if constexpr (std::is_same_v<T, float>)
    isa().scores_f32(x, y, h, count, d, out);
  else
    isa().scores_f64(x, y, h, count, d, out);
}

template <class T>
void exp_rows(T* v, const T* shift, T scale, int64_t rows) {
  if constexpr (std::is_same_v<T, float>)
    isa().exp_f32(v, shift, scale, rows);
  else
    isa().exp_f64(v, shift, scale, rows);
}

// One tile and one group of scores at a time; f(first target, count, scores (count, kTile)).
template <class T, class F>
void for_groups(const T* x, const T* y, const T* h, int64_t m, int64_t d, F&& f) {
  alignas(64) T s[kSoftGroup * kTile];
  for (int64_t j = 0; j < m; j += kSoftGroup) {
    const int64_t count = std::min<int64_t>(kSoftGroup, m - j);
    scores(x, y + j * d, h + j, count, d, s);
    f(j, count, s);
  }
}

// The softmax of each lane, exp((s - largest) / eps) / sum: `add` all scores, then turn them into shares one by one.
template <class T>
struct Softmax {
  double rate;  // 1 / eps
  T scale;      // the same, finite
  T largest[kTile];
  double sum[kTile];    // of exp((s - largest) / eps)
  double share[kTile];  // 1 / sum, when all are there
  double mean[kTile];   // like sum, times the weights of the targets; over sum, when all are there

  explicit Softmax(double eps) : rate(1 / eps), scale(T(std::min(rate, double(std::numeric_limits<T>::max())))) {
    std::fill_n(largest, kTile, -std::numeric_limits<T>::infinity());
    std::fill_n(sum, kTile, 0.0);
    std::fill_n(mean, kTile, 0.0);
  }
  void add(T* s, int64_t count, const T* weights) {
    for (int l = 0; l < kTile; ++l) {
      T top = largest[l];
      for (int64_t t = 0; t < count; ++t) top = std::max(top, s[t * kTile + l]);
      if (top == largest[l]) continue;
      const double shrink = std::exp((double(largest[l]) - double(top)) * rate);
      sum[l] *= shrink, mean[l] *= shrink;
      largest[l] = top;
    }
    exp_rows(s, largest, scale, count);
    for (int64_t t = 0; t < count; ++t)
      for (int l = 0; l < kTile; ++l) {
        sum[l] += s[t * kTile + l];
        if (weights != nullptr) mean[l] += double(s[t * kTile + l]) * double(weights[t]);
      }
  }
  void finish() {
    for (int l = 0; l < kTile; ++l) share[l] = 1 / sum[l], mean[l] /= sum[l];
  }
  void exponentials(T* s, int64_t count) const { exp_rows(s, largest, scale, count); }
};

// Calls f(thread, row, used, x, softmax) for every tile of samples: its first row and how many it has, the tile,
// (d, kTile), and its softmax with these weights, (m,) or null.
template <class T, class Params, class F>
void for_tiles(const Params& p, const T* weights, const F& f) {
  std::vector<std::vector<T>> tiles(p.run.threads);
  parallel_for(ceil_div(p.n, kTile), p.run, [&](int64_t b, int thread) {
    tiles[thread].resize(size_t(p.d) * kTile);
    T* x = tiles[thread].data();
    const int64_t row = b * kTile;
    const int used = int(std::min<int64_t>(kTile, p.n - row));
    load_tile(p.x, p.n, p.d, row, x);
    Softmax<T> softmax(p.eps);
    for_groups(x, p.y, p.h, p.m, p.d, [&](int64_t j, int64_t count, T* s) {
      softmax.add(s, count, weights == nullptr ? nullptr : weights + j);
    });
    softmax.finish();
    f(thread, row, used, x, softmax);
  });
}

// Sums over the samples, one row per thread, then over the threads.
template <class T>
void add_rows(const std::vector<std::vector<double>>& rows, T* out, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    double total = 0;
    for (const auto& row : rows)
      if (!row.empty()) total += row[i];
    out[i] = T(total);
  }
}

}  // namespace

template <class T>
void soft_assign_cpu(const SoftAssignParams<T>& p) {
  std::vector<std::vector<double>> columns(p.run.threads);
  for_tiles<T>(p, nullptr, [&](int thread, int64_t row, int used, const T* x, const auto& softmax) {
    columns[thread].resize(p.m, 0.0);
    for (int l = 0; l < used; ++l) p.value[row + l] = T(double(softmax.largest[l]) + p.eps * std::log(softmax.sum[l]));
    for_groups(x, p.y, p.h, p.m, p.d, [&](int64_t j, int64_t count, T* s) {
      softmax.exponentials(s, count);
      for (int64_t t = 0; t < count; ++t)
        for (int l = 0; l < used; ++l) columns[thread][j + t] += double(s[t * kTile + l]) * softmax.share[l];
    });
  });
  add_rows(columns, p.columns, p.m);
}

// With p_ij the softmax, v_i and c_j the incoming gradients, r_i = sum_k p_ik c_k: the gradient of score ij is
// q_ij = p_ij (v_i + (c_j - r_i) / eps), and h_j, x_i, y_j take its sums.
template <class T>
void soft_assign_grad_cpu(const SoftAssignGradParams<T>& p) {
  std::vector<std::vector<double>> grad_h(p.run.threads), grad_y(p.run.threads);
  for_tiles<T>(p, p.grad_columns, [&](int thread, int64_t row, int used, const T* x, const auto& softmax) {
    grad_h[thread].resize(p.m, 0.0);
    grad_y[thread].resize(size_t(p.m) * p.d, 0.0);
    std::vector<double> grad_x(size_t(p.d) * kTile, 0.0);
    for_groups(x, p.y, p.h, p.m, p.d, [&](int64_t j, int64_t count, T* s) {
      softmax.exponentials(s, count);
      for (int64_t t = 0; t < count; ++t) {
        double q[kTile] = {}, total = 0;
        for (int l = 0; l < used; ++l) {
          const double share_of = double(s[t * kTile + l]) * softmax.share[l];
          if (share_of == 0) continue;  // nothing times what a small eps may make infinite
          q[l] = share_of * (double(p.grad_value[row + l]) + (double(p.grad_columns[j + t]) - softmax.mean[l]) / p.eps);
          total += q[l];
        }
        grad_h[thread][j + t] += total;
        for (int64_t c = 0; c < p.d; ++c) {
          const double yc = double(p.y[(j + t) * p.d + c]);
          double along = 0;
          for (int l = 0; l < kTile; ++l) {
            along += q[l] * double(x[c * kTile + l]);
            grad_x[c * kTile + l] += q[l] * yc;
          }
          grad_y[thread][(j + t) * p.d + c] += along;
        }
      }
    });
    for (int l = 0; l < used; ++l)
      for (int64_t c = 0; c < p.d; ++c) p.grad_x[(row + l) * p.d + c] = T(grad_x[c * kTile + l]);
  });
  add_rows(grad_h, p.grad_h, p.m);
  add_rows(grad_y, p.grad_y, p.m * p.d);
}

template void soft_assign_cpu(const SoftAssignParams<float>&);
template void soft_assign_cpu(const SoftAssignParams<double>&);
template void soft_assign_grad_cpu(const SoftAssignGradParams<float>&);
template void soft_assign_grad_cpu(const SoftAssignGradParams<double>&);

}  // namespace otgen
