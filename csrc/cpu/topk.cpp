// topk: every sample's k best targets.
#include "cpu.h"
#include "rows.h"

namespace otgen {

template <class T>
void topk_cpu(const TopkParams<T>& p) {
  search_rows<T>(p, p.k, [&](int64_t row, const int64_t* index, const double* score) {
    for (int64_t r = 0; r < p.k; ++r) {
      p.index[row * p.k + r] = index[r];
      p.score[row * p.k + r] = T(score[r]);
    }
  });
}

template void topk_cpu(const TopkParams<float>&);
template void topk_cpu(const TopkParams<double>&);

}  // namespace otgen
