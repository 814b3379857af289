// measure: Monte Carlo measures of the cells. Samples are made, searched and counted one slab after the other, so only
// a slab of them exists at a time.
#include "cuda.h"
#include "sample.h"
#include "search.h"

namespace otgen {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 32;  // samples whose scores the CPU sums first (cpu/search.h): the same order, the same mean

template <class T>
struct MeasureSpace {
  int64_t slab;  // samples at a time
  int64_t k;     // targets of each that are looked for
  Targets<T> targets;
  Packed samples;
  float* x;        // (slab, d)
  int64_t* index;  // (slab, k)
  double* score;   // (slab, k)
  double* sums;    // (slab / kTile + 1,)
  double* total;   // (1,)

  MeasureSpace(const T* y, const T* h, int64_t n, int64_t m, int64_t d, bool pairs, Space& space)
      : slab(slab_rows(n, 8 * (d + 64), m * d)), k(pairs ? 2 : 1), targets(lay_out_targets(y, h, m, d, space)) {
    samples = lay_out_samples(slab, d, targets.filter, space);
    x = space.take<float>(slab * d);
    index = space.take<int64_t>(slab * k);
    score = space.take<double>(slab * k);
    sums = space.take<double>(slab / kTile + 1);
    total = space.take<double>(1);
  }
};

// A slab: samples number first, ..., first + rows - 1 of the stream, which are row, ... of the caller's.
template <class T>
struct Tally {
  const float* x;
  const int64_t* index;
  const double* score;
  int64_t first, rows, d, k, row;
  int64_t* counts;
  int32_t* pairs;
  T* gaps;
  int64_t* moments;
  double* sums;
  double* total;
};

template <class T>
OTGEN_KERNEL(kThreads)
count_kernel(Tally<T> p) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i >= p.rows) return;
  const int64_t* best = p.index + i * p.k;
  const double* score = p.score + i * p.k;
  atomic_add(&p.counts[*best], int64_t(1));
  if (p.pairs == nullptr) return;
  p.pairs[2 * (p.row + i)] = int32_t(best[0]), p.pairs[2 * (p.row + i) + 1] = int32_t(best[1]);
  p.gaps[p.row + i] = T(score[0] - score[1]);
}

template <class T>
OTGEN_KERNEL(kThreads)
moment_kernel(Tally<T> p) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i >= p.rows * p.d) return;
  atomic_add(&p.moments[p.index[i / p.d * p.k] * p.d + i % p.d], int64_t(llrint(double(p.x[i]) * kMomentScale)));
}

// Tiles begin at multiples of kTile of the stream, so the first and the last may be partial.
template <class T>
OTGEN_DEVICE int64_t tiles_of(const Tally<T>& p) {
  return ceil_div(p.first % kTile + p.rows, kTile);
}

template <class T>
OTGEN_KERNEL(kThreads)
sum_tiles_kernel(Tally<T> p) {
  const int64_t tile = block_index() * kThreads + thread_index();
  if (tile >= tiles_of(p)) return;
  const int64_t begin = tile * kTile - p.first % kTile;
  double sum = 0;
  for (int64_t i = begin; i < begin + kTile; ++i)
    if (i >= 0 && i < p.rows) sum += p.score[i * p.k];
  p.sums[tile] = sum;
}

// One warp: reads together what it adds in order.
template <class T>
OTGEN_KERNEL(kWarp)
sum_kernel(Tally<T> p) {
  double total = *p.total;
  const int64_t tiles = tiles_of(p);
  for (int64_t first = 0; first < tiles; first += kWarp) {
    const int64_t i = first + lane_index();
    const double mine = i < tiles ? p.sums[i] : 0.0;
    for (int l = 0; l < kWarp; ++l) {
      const double sum = shuffle(mine, l);
      if (first + l < tiles) total += sum;
    }
  }
  if (lane_index() == 0) *p.total = total;
}

template <class T>
void tally(const Tally<T>& p, const Run& run) {
  launch("measure", count_kernel<T>, ceil_div(p.rows, kThreads), kThreads, 0, run, p);
  if (p.moments != nullptr) launch("measure", moment_kernel<T>, ceil_div(p.rows * p.d, kThreads), kThreads, 0, run, p);
  launch("measure", sum_tiles_kernel<T>, ceil_div(p.rows / kTile + 2, kThreads), kThreads, 0, run, p);
  launch("measure", sum_kernel<T>, 1, kWarp, 0, run, p);
}

}  // namespace

template <class T>
void measure_cuda(const MeasureParams<T>& p) {
  const OnDevice device(p.run);
  Space space(p.run.space);
  const MeasureSpace<T> own(p.y, p.h, p.n, p.m, p.d, p.pairs != nullptr, space);
  pack_targets(own.targets, p.run);
  fill_zero(own.total, sizeof(double), p.run);
  Pace pace;
  for (int64_t row = 0, rows; row < p.n; row += rows) {
    Stream stream = p.stream;
    stream.first += row;
    rows = std::min(own.slab - stream.first % kTile, p.n - row);  // slabs end where tiles do
    make_samples({stream, rows, p.d, p.run, own.x});
    search(Samples<float>{own.x, rows, own.k, own.samples, own.index, own.score}, own.targets, p.run);
    tally<T>({own.x, own.index, own.score, stream.first, rows, p.d, own.k, row, p.counts, p.pairs, p.gaps, p.moments,
              own.sums, own.total},
             p.run);
    pace.step(p.run, double(row + rows) / double(p.n));
  }
  double total = 0;
  read_back(&total, own.total, sizeof total, p.run);
  *p.mean_u = total / double(p.n);
}

template <class T>
int64_t measure_space(int64_t n, int64_t m, int64_t d, bool pairs) {
  Space space(nullptr);
  MeasureSpace<T>(nullptr, nullptr, n, m, d, pairs, space);
  return space.size();
}

template void measure_cuda(const MeasureParams<float>&);
template void measure_cuda(const MeasureParams<double>&);
template int64_t measure_space<float>(int64_t, int64_t, int64_t, bool);
template int64_t measure_space<double>(int64_t, int64_t, int64_t, bool);

}  // namespace otgen
