// What every kernel needs: host/device marks, integer helpers, and the way a long call hears of Ctrl-C.
#pragma once

#include <cstdint>

// Internal linkage on purpose: files built for different instruction sets include these functions, and the linker
// must not let the AVX-512 copy of one serve a machine that lacks it.
#if defined(__CUDACC__)
#define OTGEN_HD static __host__ __device__ __forceinline__
#else
#define OTGEN_HD static inline
#endif

namespace otgen {

OTGEN_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A long call asks its caller about ten times a second whether to go on, and says how far it is.
struct Poll {
  bool (*keep_going)(void* self, double done) = nullptr;
  void* self = nullptr;
};

// How a kernel is to be run, and where: on the CPU, or on a CUDA device, in order with the other work of a stream.
struct Run {
  int threads = 1;
  Poll poll;               // a CUDA kernel waits for nothing where there is nobody to ask
  int device = -1;         // CUDA device; -1 for the CPU
  void* stream = nullptr;  // cudaStream_t
  void* space = nullptr;   // work space on the device, of the size that cuda.h tells
};

// Thrown where a call was told to stop; the outputs are then worthless.
struct Cancelled {};

}  // namespace otgen
