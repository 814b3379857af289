// assign: every sample's best target.
#include "cpu.h"
#include "rows.h"

namespace otgen {

template <class T>
void assign_cpu(const AssignParams<T>& p) {
  search_rows<T>(p, 1, [&](int64_t row, const int64_t* index, const double* score) {
    p.winner[row] = *index;
    p.score[row] = T(*score);
  });
}

template void assign_cpu(const AssignParams<float>&);
template void assign_cpu(const AssignParams<double>&);

}  // namespace otgen
