// assign: every sample's best target.
#include "cuda.h"

namespace otgen {

template <class T>
void assign_cuda(const AssignParams<T>& p) {
  topk_cuda<T>({p.x, p.y, p.h, p.n, p.m, p.d, 1, p.run, p.winner, p.score});
}

template void assign_cuda(const AssignParams<float>&);
template void assign_cuda(const AssignParams<double>&);

}  // namespace otgen
