// The GPU's host functions, one per op; params.h says what they read and write, all of it in the device's memory. They
// only start work on the caller's stream, except that measure waits for its result.
#pragma once

#include <string>
#include <vector>

#include "../params.h"

namespace otgen {

template <class T>
void assign_cuda(const AssignParams<T>& p);
template <class T>
void topk_cuda(const TopkParams<T>& p);
template <class T>
void measure_cuda(const MeasureParams<T>& p);  // *mean_u alone is in the host's memory
template <class T>
void soft_assign_cuda(const SoftAssignParams<T>& p);
template <class T>
void soft_assign_grad_cuda(const SoftAssignGradParams<T>& p);
void sample_cuda(const SampleParams& p);
void rounding_cuda(const RoundingParams& p);

// Bytes of work space that each wants in run.space.
template <class T>
int64_t topk_space(int64_t n, int64_t m, int64_t d, int64_t k);
template <class T>
int64_t measure_space(int64_t n, int64_t m, int64_t d, bool pairs);
template <class T>
int64_t soft_assign_space(int64_t n, int64_t m, int64_t d);
template <class T>
int64_t soft_assign_grad_space(int64_t n, int64_t m, int64_t d);

// Names of the filters, none first; which one is in use: what the environment variable OTGEN_CUDA_FILTER names, or the
// fastest whose rounding has been seen on hardware; and the choice of another for the rest of the process.
std::vector<const char*> cuda_filters();
const char* cuda_filter();
void set_cuda_filter(const std::string& name);

}  // namespace otgen
