// The search in plain float64, and what surrounds it and the filtered one.
#include <atomic>
#include <chrono>
#include <cstdlib>

#include "cuda.h"
#include "filter.h"
#include "rows.h"
#include "search.h"

namespace otgen {
namespace {

template <class X, class T>
struct Exact {
  Samples<X> samples;
  const T* y;
  const T* h;
  int64_t m, d;
};

template <class X, class T>
OTGEN_KERNEL(kRows)
exact_kernel(Exact<X, T> p) {
  const int64_t first = block_index() * kRows, row = first + thread_index(), k = p.samples.k;
  const int rows = at_most(p.samples.rows - first, kRows);
  List best{p.samples.index + row * k, p.samples.score + row * k, k, 0};
  for (int64_t j = 0; j < p.m; j += kColumns) {
    const int columns = at_most(p.m - j, kColumns);
    double s[kColumns];
#pragma unroll
    for (int t = 0; t < kColumns; ++t) s[t] = t < columns ? double(p.h[j + t]) : 0.0;
    add_products(p.samples.x + first * p.d, rows, p.y + j * p.d, columns, p.d, s);
    if (thread_index() >= rows) continue;
#pragma unroll
    for (int t = 0; t < kColumns; ++t)
      if (t < columns && best.wants(s[t], j + t)) best.insert(s[t], j + t);
  }
}

constexpr const char* kFilterNames[] = {"none", "float32", "bfloat16", "wgmma"};

// The matrix unit's rounding has not been seen on hardware yet (bench/gpu_check.py), so it has to be asked for.
constexpr Filter kDefaultFilter = Filter::kFloat32;

Filter find_filter(const std::string& name) {
  for (int i = 0; i < 4; ++i)
    if (name == kFilterNames[i]) return Filter(i);
  throw std::invalid_argument("OTGEN_CUDA_FILTER: must be none, float32, bfloat16 or wgmma, got '" + name + "'");
}

std::atomic<Filter>& choice() {
  static std::atomic<Filter> filter{[] {
    const char* wanted = std::getenv("OTGEN_CUDA_FILTER");
    return wanted != nullptr && *wanted != '\0' ? find_filter(wanted) : kDefaultFilter;
  }()};
  return filter;
}

}  // namespace

std::vector<const char*> cuda_filters() { return {std::begin(kFilterNames), std::end(kFilterNames)}; }
const char* cuda_filter() { return kFilterNames[int(choice().load())]; }
void set_cuda_filter(const std::string& name) { choice() = find_filter(name); }

Filter chosen_filter() { return choice().load(); }

int64_t slab_rows(int64_t n, int64_t bytes, int64_t work) {
  const int64_t most = std::min(kSlabBytes / bytes, kSlabWork / work);
  const int64_t room = std::max<int64_t>(1, most / kTileRows) * kTileRows;
  return std::min({kSlabRows, room, ceil_div(n, kTileRows) * kTileRows});
}

template <class X, class T>
void search(const Samples<X>& samples, const Targets<T>& targets, const Run& run) {
  if (targets.filter != Filter::kNone) return search_filtered(samples, targets, run);
  launch("search", exact_kernel<X, T>, ceil_div(samples.rows, kRows), kRows, sizeof(RowsMemory<double>), run,
         {samples, targets.y, targets.h, targets.m, targets.d});
}

template void search(const Samples<float>&, const Targets<float>&, const Run&);
template void search(const Samples<float>&, const Targets<double>&, const Run&);
template void search(const Samples<double>&, const Targets<double>&, const Run&);

void Pace::step(const Run& run, double done) {
  if (run.poll.keep_going == nullptr) return;
  marks_[slab_ % 2].set(run);
  if (slab_++ > 0) marks_[slab_ % 2].wait();
  using Clock = std::chrono::steady_clock;
  constexpr auto kPollEvery = std::chrono::milliseconds(100);
  if (Clock::now() - polled_ < kPollEvery) return;
  polled_ = Clock::now();
  if (!run.poll.keep_going(run.poll.self, done)) throw Cancelled{};
}

}  // namespace otgen
