// reassign: winners of fixed samples under new heights, from what is known of the old ones.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../score.h"
#include "cpu.h"
#include "threads.h"

namespace otgen {

namespace {

constexpr int64_t kRows = 1 << 12;  // of a block

// A score moves by exactly the rise of its height. So the best of the list wins if it stays above the rest of the list
// and above the last of it raised as far as any height rose, which no other target was above. Both by more than what
// rounding does to two scores: u of T to each that was kept, and (d + 4) 2^-53 (|h| + |new h| + 2 |x||y|) to their
// sums.
template <class T>
void reassign_row(const ReassignParams<T>& p, int64_t row) {
  const int64_t* index = p.index + row * p.k;
  const T* kept = p.score + row * p.k;
  double best = -std::numeric_limits<double>::infinity(), second = best;
  int64_t winner = -1;
  for (int64_t i = 0; i < p.k; ++i) {
    const double s = double(kept[i]) + p.rise[index[i]];
    if (s > best)
      second = best, best = s, winner = index[i];
    else
      second = std::max(second, s);
  }
  const double others = p.k < p.m ? double(kept[p.k - 1]) + p.highest_rise : second;
  const double size = std::max(std::abs(double(kept[0])), std::abs(double(kept[p.k - 1])));
  const double slack = p.slack_score * size + p.slack_norm * p.norm[row] + p.slack;
  const bool sure = best - std::max(second, others) > slack;  // false where something is not a number
  p.winner[row] = sure ? winner : -1;
  p.new_score[row] = sure ? T(score(p.x + row * p.d, p.y + winner * p.d, p.h[winner], p.d)) : T(0);
}

}  // namespace

template <class T>
void reassign_cpu(const ReassignParams<T>& p) {
  parallel_for(ceil_div(p.n, kRows), p.run, [&](int64_t b, int) {
    for (int64_t row = b * kRows; row < std::min(p.n, (b + 1) * kRows); ++row) reassign_row(p, row);
  });
}

template void reassign_cpu(const ReassignParams<float>&);
template void reassign_cpu(const ReassignParams<double>&);

}  // namespace otgen
