// The CPU's host functions, one per op; params.h says what they read and write.
#pragma once

#include "../params.h"

namespace otgen {

template <class T>
void assign_cpu(const AssignParams<T>& p);
template <class T>
void topk_cpu(const TopkParams<T>& p);
template <class T>
void reassign_cpu(const ReassignParams<T>& p);
template <class T>
void measure_cpu(const MeasureParams<T>& p);
template <class T>
void soft_assign_cpu(const SoftAssignParams<T>& p);
template <class T>
void soft_assign_grad_cpu(const SoftAssignGradParams<T>& p);
void sample_cpu(const SampleParams& p);
void laplacian_cpu(const LaplacianParams& p);
void power_diagram_cpu(const PowerDiagramParams& p);
void power_cells_cpu(const PowerCellsParams& p);
// Multiply-adds of the filter's kind, Gflop/s, that so many threads can do on registers alone: a tenth of a second.
double peak_gflops(int threads);

}  // namespace otgen
