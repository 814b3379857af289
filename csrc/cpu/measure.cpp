// measure: Monte Carlo measures of the cells, from samples that are made here and never stored.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <mutex>

#include "cpu.h"
#include "threads.h"
#include "tiles.h"

namespace otgen {

namespace {

constexpr float kNormalReach = 4.0f;      // beyond it lie 6 coordinates in 100 000
constexpr float kNormalFar = 5.0f;        // how far the norm of samples is over the root of its mean square,
constexpr float kUniformFar = 1.0f;       // seven standard deviations
constexpr int64_t kSlab = 1 << 20;        // tiles whose sums are kept at a time: 8 MB
constexpr int64_t kOwnMoments = 1 << 16;  // up to which every thread has its own: half a megabyte
constexpr size_t kLocks = 256;            // of moments that are shared, so that threads seldom meet
static_assert(kSlab % kMostImages == 0, "whole sets");

// Tells of a slab's progress as of a part of the whole.
struct SlabPoll {
  Poll whole;
  double done, share;
  static bool keep_going(void* self, double d) {
    const auto& slab = *static_cast<SlabPoll*>(self);
    return slab.whole.keep_going == nullptr || slab.whole.keep_going(slab.whole.self, slab.done + slab.share * d);
  }
};

}  // namespace

template <class T>
void measure_cpu(const MeasureParams<T>& p) {
  using Block = typename Search<T>::template Block<float>;
  const bool uniform = p.stream.source == Source::kUniform;
  const float root = std::sqrt(float(p.d));
  const Region region{std::vector<float>(size_t(p.d), uniform ? 0.5f : 0.0f), uniform ? 0.5f : kNormalReach,
                      uniform ? std::sqrt(1.0f / 12) * root + kUniformFar : root + kNormalFar, p.stream.images};
  const Search<T> search(p.y, p.h, p.m, p.d, p.pairs != nullptr ? 2 : 1, p.run.threads, region);
  const StreamTiles source(p.stream, p.n, p.d);
  const int images = p.stream.images;
  const int tiles = int(ceil_div(search.tiles_per_block(p.n, p.run.threads), images)) * images;

  struct Worker {
    Block block;
    std::vector<int64_t> counts, moments;
  };
  std::vector<std::unique_ptr<Worker>> workers(p.run.threads);
  const size_t own = p.moments != nullptr && p.m * p.d <= kOwnMoments ? size_t(p.m * p.d) : 0;
  std::array<std::mutex, kLocks> locks;  // of moments that are shared, for some cells each
  const auto add_to_moments = [&](int64_t cell, const float* x, Worker& worker) {
    std::unique_lock<std::mutex> lock;
    if (own == 0) lock = std::unique_lock(locks[size_t(cell) % kLocks]);
    int64_t* moments = (own == 0 ? p.moments : worker.moments.data()) + cell * p.d;
    for (int64_t c = 0; c < p.d; ++c) moments[c] += std::llrint(double(x[c]) * kMomentScale);
  };
  // Sums per tile, added in the order of the tiles: the same number for any number of threads.
  std::vector<double> sums;
  int64_t begin = 0, end = 0;  // tiles of a slab

  const auto count_block = [&](int64_t b, int thread) {
    if (!workers[thread])
      workers[thread].reset(
          new Worker{Block(search, tiles), std::vector<int64_t>(p.m, 0), std::vector<int64_t>(own, 0)});
    Worker& worker = *workers[thread];
    const int64_t first = begin + b * tiles;
    const int used = int(std::min<int64_t>(tiles, end - first));
    for (int i = 0; i < used; i += images) {
      source.make(first + i, worker.block.samples(i));
      for (int j = 1; j < images; ++j) source.make_image(worker.block.samples(i), j, worker.block.samples(i + j));
    }
    worker.block.run(used);
    for (int i = 0; i < used; ++i)
      for (int l = 0; l < kTile; ++l) {
        const int64_t row = source.row(first + i, l);
        if (row < 0 || row >= p.n) continue;
        const int64_t* index = worker.block.index(i, l);
        const double* s = worker.block.score(i, l);
        ++worker.counts[*index];
        sums[first - begin + i] += *s;
        if (p.pairs != nullptr) {
          p.pairs[2 * row] = int32_t(index[0]), p.pairs[2 * row + 1] = int32_t(index[1]);
          p.gaps[row] = T(s[0] - s[1]);
        }
        if (p.moments != nullptr) add_to_moments(*index, worker.block.row(i, l), worker);
      }
  };

  const KeepDenormals guard;
  double total = 0;
  for (; begin < source.count(); begin = end) {
    end = std::min(begin + kSlab, source.count());
    sums.assign(size_t(end - begin), 0.0);
    const double all = double(source.count());
    SlabPoll poll{p.run.poll, double(begin) / all, double(end - begin) / all};
    parallel_for(ceil_div(end - begin, tiles), {p.run.threads, {SlabPoll::keep_going, &poll}}, count_block);
    for (double s : sums) total += s;
    if (end < source.count() && !SlabPoll::keep_going(&poll, 1.0)) throw Cancelled{};  // a slab may be quick
  }
  for (const auto& worker : workers)
    if (worker) {
      std::transform(p.counts, p.counts + p.m, worker->counts.begin(), p.counts, std::plus<>());
      std::transform(worker->moments.begin(), worker->moments.end(), p.moments, p.moments, std::plus<>());
    }
  *p.mean_u = total / double(p.n);
}

template void measure_cpu(const MeasureParams<float>&);
template void measure_cpu(const MeasureParams<double>&);

}  // namespace otgen
