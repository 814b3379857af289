// topk: every sample's k best targets, best first.
#include "cuda.h"
#include "search.h"

namespace otgen {
namespace {

constexpr int kThreads = 256;

// What topk keeps in its work space.
template <class T>
struct TopkSpace {
  int64_t slab;  // samples at a time
  Targets<T> targets;
  Packed samples;
  double* score;  // (slab, k), where the caller's scores are float32

  TopkSpace(const T* y, const T* h, int64_t n, int64_t m, int64_t d, int64_t k, Space& space)
      : slab(slab_rows(n, 4 * (d + 64) + 8 * k, m * d)), targets(lay_out_targets(y, h, m, d, space)) {
    samples = lay_out_samples(slab, d, targets.filter, space);
    score = std::is_same<T, float>::value ? space.take<double>(slab * k) : nullptr;
  }
};

struct Narrow {
  const double* from;
  float* to;
  int64_t count;
};

OTGEN_KERNEL(kThreads)
narrow_kernel(Narrow p) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i < p.count) p.to[i] = float(p.from[i]);
}

void narrow(const double* from, float* to, int64_t count, const Run& run) {
  launch("topk", narrow_kernel, ceil_div(count, kThreads), kThreads, 0, run, {from, to, count});
}

}  // namespace

template <class T>
void topk_cuda(const TopkParams<T>& p) {
  const OnDevice device(p.run);
  Space space(p.run.space);
  const TopkSpace<T> own(p.y, p.h, p.n, p.m, p.d, p.k, space);
  pack_targets(own.targets, p.run);
  Pace pace;
  for (int64_t first = 0; first < p.n; first += own.slab) {
    const int64_t rows = std::min(own.slab, p.n - first);
    int64_t* index = p.index + first * p.k;
    T* score = p.score + first * p.k;
    const T* x = p.x + first * p.d;
    if constexpr (std::is_same_v<T, float>) {
      search(Samples<T>{x, rows, p.k, own.samples, index, own.score}, own.targets, p.run);
      narrow(own.score, score, rows * p.k, p.run);
    } else {
      search(Samples<T>{x, rows, p.k, own.samples, index, score}, own.targets, p.run);
    }
    pace.step(p.run, double(first + rows) / double(p.n));
  }
}

template <class T>
int64_t topk_space(int64_t n, int64_t m, int64_t d, int64_t k) {
  Space space(nullptr);
  TopkSpace<T>(nullptr, nullptr, n, m, d, k, space);
  return space.size();
}

template void topk_cuda(const TopkParams<float>&);
template void topk_cuda(const TopkParams<double>&);
template int64_t topk_space<float>(int64_t, int64_t, int64_t, int64_t);
template int64_t topk_space<double>(int64_t, int64_t, int64_t, int64_t);

}  // namespace otgen
