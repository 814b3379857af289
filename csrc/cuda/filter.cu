#include "filter.h"
namespace otgen {
template <class T>
Targets<T> lay_out_targets(const T* y, const T* h, int64_t m, int64_t d, int64_t, Space&) {
  return {y, h, m, d, Filter::kNone, {}, nullptr, nullptr};
}
template <class T>
void pack_targets(const Targets<T>&, const Run&) {}
Packed lay_out_samples(int64_t, int64_t, Filter, Space&) { return {}; }
template Targets<float> lay_out_targets(const float* y, const float* h, int64_t m, int64_t d, int64_t k, Space& space);
template Targets<double> lay_out_targets(const double* y, const double* h, int64_t m, int64_t d, int64_t k,
                                         Space& space);
template void pack_targets(const Targets<float>&, const Run&);
template void pack_targets(const Targets<double>&, const Run&);
}  // namespace otgen
