// What the filter reads: targets centred and rounded, in the order of its product, with the bounds of filter.h; samples
// likewise, but for the centre.
#include <cmath>

#include "filter.h"

namespace otgen {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kCentreTargets = 1 << 10;  // of which the centre is the mean: any point is right, a near one is fast
constexpr double kRoundUp = 1 + 0x1p-20;     // covers the few roundings made while a bound is evaluated
constexpr double kTiny = 0x1p-126;           // the smallest normal float32
constexpr double kHuge = 1e18;               // the product of two such numbers is far from the largest float32

// To float32, not below the exact value; infinite beyond `limit`, and for what is not a number.
OTGEN_DEVICE float up(double v, double limit) { return v < limit ? float(v * kRoundUp) : INFINITY; }

// Of `lanes` neighbouring lanes, a power of two.
OTGEN_DEVICE double sum_of(int lanes, double v) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}

template <class T>
struct Centre {
  const T* y;
  const T* h;
  int64_t m, d;
  double* centre;  // (d + 1,)
};

// The mean of about kCentreTargets of the targets, and of their heights; all of them would take as long as the search
// of a small slab. Each lane takes a coordinate, the last one the heights, each warp every eighth of those targets.
template <class T>
OTGEN_KERNEL(kThreads)
centre_kernel(Centre<T> p) {
  struct Sums {
    double part[kWarps][kWarp];
  };
  Sums& sums = shared<Sums>();
  const int64_t c = block_index() * kWarp + lane_index();
  double sum = 0;
  const int64_t step = ceil_div(p.m, kCentreTargets);
  if (c <= p.d)
    for (int64_t j = warp_index() * step; j < p.m; j += kWarps * step)
      sum += double(c < p.d ? p.y[j * p.d + c] : p.h[j]);
  sums.part[warp_index()][lane_index()] = sum;
  barrier();
  if (warp_index() != 0 || c > p.d) return;
  for (int w = 1; w < kWarps; ++w) sum += sums.part[w][lane_index()];
  p.centre[c] = sum / double(ceil_div(p.m, step));
}

template <class V>
struct Pack {
  const V* v;            // (rows, d)
  const double* centre;  // (d,) or null
  int64_t rows, d, chunks;
  int depth, lanes;  // lanes for a row
  Packed packed;
};

// Some lanes round a row, (v - centre), to words and measure what that did to it. Past the last row and the last
// coordinate of a tile there are zeros.
template <class V, class P, bool kSamples>
OTGEN_KERNEL(kThreads)
pack_kernel(Pack<V> p) {
  using Word = typename P::Word;
  const int64_t row = block_index() * (kThreads / p.lanes) + thread_index() / p.lanes;
  const int r = int(row % kTileRows), chunk_words = kTileRows * p.depth;
  Word* tile = static_cast<Word*>(p.packed.words) + row / kTileRows * p.chunks * chunk_words;
  double norm = 0, residual = 0, original = 0;
  for (int64_t chunk = 0; chunk < p.chunks; ++chunk, tile += chunk_words)
    for (int at = thread_index() % p.lanes; at < p.depth; at += p.lanes) {
      const int64_t c = chunk * p.depth + at;
      Word word = P::round(0.0f);
      if (row < p.rows && c < p.d) {
        const double v = double(p.v[row * p.d + c]), centred = p.centre == nullptr ? v : v - p.centre[c];
        word = P::round(float(centred));
        const double rounded = double(P::value(word));
        const double off = fabs(centred - rounded) + 0x1p-52 * fabs(centred) + kTiny;  // the subtraction rounds, too
        norm += rounded * rounded, residual += off * off, original += v * v;
      }
      tile[kSamples ? P::sample_place(r, at, p.depth) : P::target_place(r, at, p.depth)] = word;
    }
  norm = sqrt(sum_of(p.lanes, norm)), residual = sqrt(sum_of(p.lanes, residual));
  original = sqrt(sum_of(p.lanes, original));
  if (thread_index() % p.lanes != 0 || row >= p.rows) return;
  p.packed.norm[row] = up(norm + residual, kHuge);
  p.packed.residual[row] = up(residual, kHuge);
  if (!kSamples) p.packed.original[row] = up(original, INFINITY);
}

template <class T>
struct Heads {
  Targets<T> targets;
  double chain;
};

// Heights and bounds of a tile; a thread for each group.
template <class T>
OTGEN_KERNEL(kWarp)
head_kernel(Heads<T> p) {
  const int64_t group = block_index() * kWarp + thread_index(), m = p.targets.m;
  const double d = double(p.targets.d), exact = (d + 2) * 0x1p-53;
  if (group >= ceil_div(m, kTileRows) * kTileGroups) return;
  float* head = p.targets.heads + group / kTileGroups * kHead;
  const int g = int(group % kTileGroups);
  double norm = 0, residual = 0, original = 0, h_abs = 0, h_residual = 0, h_original = 0;
  bool huge = false;
  for (int t = 0; t < kGroup; ++t) {
    const int64_t j = group * kGroup + t;
    head[height_place(g, t)] = -INFINITY;
    if (j >= m) continue;
    const double h = double(p.targets.h[j]), centred = h - p.targets.centre[p.targets.d];
    const float rounded = float(centred);
    head[height_place(g, t)] = rounded;
    norm = fmax(norm, double(p.targets.packed.norm[j]));
    residual = fmax(residual, double(p.targets.packed.residual[j]));
    original = fmax(original, double(p.targets.packed.original[j]));
    h_abs = fmax(h_abs, fabs(double(rounded)));
    h_residual = fmax(h_residual, fabs(centred - double(rounded)) + 0x1p-52 * fabs(centred));
    h_original = fmax(h_original, fabs(h));
    huge = huge || !(fabs(centred) < kHuge);
  }
  const double underflow = kTiny * (2 * d + 4 + sqrt(d) * norm);
  const double alpha = p.chain * h_abs + h_residual + exact * h_original + underflow;
  const double beta = p.chain * norm + residual + exact * original;
  float* bounds = head + kTileRows + g;
  bounds[0] = huge ? INFINITY : up(alpha, INFINITY);
  bounds[kTileGroups] = up(beta, INFINITY);
  bounds[2 * kTileGroups] = up(norm, INFINITY);
}

template <class V, class P, bool kSamples>
void pack(const V* v, const double* centre, int64_t rows, int64_t d, const Packed& packed, const Run& run) {
  const int depth = P::depth(d);
  int lanes = 1;
  while (lanes < kWarp && lanes < depth) lanes *= 2;
  const int64_t padded = ceil_div(rows, kTileRows) * kTileRows;
  launch("pack", pack_kernel<V, P, kSamples>, padded / (kThreads / lanes), kThreads, 0, run,
         Pack<V>{v, centre, rows, d, ceil_div(d, depth), depth, lanes, packed});
}

Packed lay_out(int64_t rows, int64_t d, Filter filter, Space& space) {
  Packed packed{};
  with_product(filter, d, [&](auto product) {
    packed.words = space.take<char>(ceil_div(rows, kTileRows) * kTileRows * row_bytes<decltype(product)>(d));
  });
  packed.norm = space.take<float>(rows), packed.residual = space.take<float>(rows);
  return packed;
}

}  // namespace

template <class P, class X>
void pack_samples(const Samples<X>& s, int64_t d, const Run& run) {
  pack<X, P, true>(s.x, nullptr, s.rows, d, s.packed, run);
}

Packed lay_out_samples(int64_t rows, int64_t d, Filter filter, Space& space) {
  return filter == Filter::kNone ? Packed{} : lay_out(rows, d, filter, space);
}

template <class T>
Targets<T> lay_out_targets(const T* y, const T* h, int64_t m, int64_t d, Space& space) {
  Targets<T> targets{y, h, m, d, chosen_filter(), {}, nullptr, nullptr};
  if (targets.filter == Filter::kNone) return targets;
  targets.packed = lay_out(m, d, targets.filter, space);
  targets.packed.original = space.take<float>(m);
  targets.centre = space.take<double>(d + 1);
  targets.heads = space.take<float>(ceil_div(m, kTileRows) * kHead);
  return targets;
}

template <class T>
void pack_targets(const Targets<T>& t, const Run& run) {
  if (t.filter == Filter::kNone) return;
  launch("centre", centre_kernel<T>, ceil_div(t.d + 1, kWarp), kThreads, sizeof(double) * kThreads, run,
         Centre<T>{t.y, t.h, t.m, t.d, t.centre});
  with_product(t.filter, t.d, [&](auto product) {
    using P = decltype(product);
    pack<T, P, false>(t.y, t.centre, t.m, t.d, t.packed, run);
    launch("bounds", head_kernel<T>, ceil_div(ceil_div(t.m, kTileRows) * kTileGroups, kWarp), kWarp, 0, run,
           Heads<T>{t, P::chain(t.d)});
  });
}

template Targets<float> lay_out_targets(const float*, const float*, int64_t, int64_t, Space&);
template Targets<double> lay_out_targets(const double*, const double*, int64_t, int64_t, Space&);
template void pack_targets(const Targets<float>&, const Run&);
template void pack_targets(const Targets<double>&, const Run&);
template void pack_samples<LowProduct>(const Samples<float>&, int64_t, const Run&);
template void pack_samples<LowProduct>(const Samples<double>&, int64_t, const Run&);
template void pack_samples<Float32Product>(const Samples<float>&, int64_t, const Run&);
template void pack_samples<Float32Product>(const Samples<double>&, int64_t, const Run&);
template void pack_samples<Bfloat16Product>(const Samples<float>&, int64_t, const Run&);
template void pack_samples<WgmmaProduct>(const Samples<float>&, int64_t, const Run&);
template void pack_samples<Bfloat16Product>(const Samples<double>&, int64_t, const Run&);
template void pack_samples<WgmmaProduct>(const Samples<double>&, int64_t, const Run&);

}  // namespace otgen
