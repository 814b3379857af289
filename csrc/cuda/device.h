// The thin layer that device code is written against: what of CUDA the kernels use, under names of our own. Without a
// CUDA compiler the same names run on the host (emulate.h), where tests execute every kernel.
//
// A kernel is `OTGEN_KERNEL(threads) f(Params p)`, with the blocks that are to share a processor as a second number if
// it matters; threads of a block come in whole warps of 32; its shared memory is one struct, `shared<S>()`, of the size
// that `launch` was given, and begins at a multiple of 1024 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "../common.h"

namespace otgen {

OTGEN_HD int at_most(int64_t v, int limit) { return v < limit ? int(v) : limit; }

constexpr int kGroupDepth = 64;              // coordinates of a product of warp groups; its start is a small part of it
constexpr int64_t kGroupShared = 227 << 10;  // bytes of shared memory that a block may have where there are warp groups

// In a matrix that warp groups multiply: rows of 128 bytes, whose pieces of 16 bytes change places from row to row, so
// that neither eight rows of a piece nor eight pieces of a row meet in one bank.
OTGEN_HD int group_place(int row, int k) { return row * kGroupDepth + (k / 8 ^ row % 8) * 8 + k % 8; }

}  // namespace otgen

#if !defined(__CUDACC__)
#include "emulate.h"
#else

#include <cuda_runtime.h>

#define OTGEN_KERNEL(...) __global__ void __launch_bounds__(__VA_ARGS__)
#define OTGEN_DEVICE static __device__ __forceinline__
#define OTGEN_DEVICE_CALLED static __device__ __noinline__  // for what is rare: it takes no registers from what is not
#define OTGEN_CONSTANT const __grid_constant__  // a kernel's parameter that is handed on by reference is not copied
#define OTGEN_DEVICE_MEMBER __device__ __forceinline__

namespace otgen {

constexpr int kWarp = 32;
constexpr int64_t kManyBlocks = 512;       // about what keeps a large GPU busy
constexpr int64_t kSlabRows = 1 << 18;     // samples that are worked on at a time: several blocks for each processor,
constexpr int64_t kSlabBytes = 256 << 20;  // with their work space,
constexpr int64_t kSlabWork = int64_t(1) << 42;  // and products: about a second of float64, so that Ctrl-C is heard

// --- in kernels ------------------------------------------------------------------------------------------------------

OTGEN_DEVICE int thread_index() { return int(threadIdx.x); }
OTGEN_DEVICE int64_t block_index() { return blockIdx.x; }
OTGEN_DEVICE int lane_index() { return int(threadIdx.x) % kWarp; }
OTGEN_DEVICE int warp_index() { return int(threadIdx.x) / kWarp; }
OTGEN_DEVICE void barrier() { __syncthreads(); }
OTGEN_DEVICE void warp_barrier() { __syncwarp(); }

template <class S>
OTGEN_DEVICE S& shared() {
  extern __shared__ __align__(1024) unsigned char otgen_shared_memory[];
  return *reinterpret_cast<S*>(otgen_shared_memory);
}

// Of the lane whose index differs in the bits of `mask`.
template <class V>
OTGEN_DEVICE V shuffle_xor(V v, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, v, mask);
}

template <class V>
OTGEN_DEVICE V shuffle(V v, int lane) {
  return __shfl_sync(0xFFFFFFFFu, v, lane);
}

OTGEN_DEVICE uint32_t ballot(bool v) { return __ballot_sync(0xFFFFFFFFu, v); }
OTGEN_DEVICE int count_bits(uint32_t v) { return __popc(v); }

OTGEN_DEVICE int atomic_add(int* at, int v) { return atomicAdd(at, v); }
OTGEN_DEVICE void atomic_add(int64_t* at, int64_t v) {
  atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(v));  // two's complement
}
OTGEN_DEVICE int atomic_max(int* at, int v) { return atomicMax(at, v); }
OTGEN_DEVICE int fresh(const int* at) { return *static_cast<const volatile int*>(at); }

OTGEN_DEVICE float bits_as_float(int v) { return __int_as_float(v); }
OTGEN_DEVICE int float_as_bits(float v) { return __float_as_int(v); }

// 16 bytes from global to shared memory, in the background; `copy_wait` waits for all that this thread began.
OTGEN_DEVICE void copy_16(void* to, const void* from) {
  const unsigned at = unsigned(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(at), "l"(from) : "memory");
}
OTGEN_DEVICE void copy_wait() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }

// 16 bytes of shared memory at once; they begin at a multiple of 16.
OTGEN_DEVICE void load_16(const uint32_t* from, uint32_t* to) {
  const uint4 v = *reinterpret_cast<const uint4*>(from);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
OTGEN_DEVICE void load_16(const float* from, float* to) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

// c += a b on the matrix unit, a (16, 16) and b (16, 8) bfloat16, c (16, 8) float32, spread over the warp as the PTX
// manual says of mma.m16n8k16: with g = lane / 4 and q = lane % 4, c holds (g, 2q), (g, 2q + 1), (g + 8, 2q),
// (g + 8, 2q + 1); a holds pairs (g, 2q..), (g + 8, 2q..), (g, 2q + 8..), (g + 8, 2q + 8..); b holds pairs (2q.., g),
// (2q + 8.., g). All lanes of a warp come here together.
OTGEN_DEVICE void multiply_bfloat16(float& c0, float& c1, float& c2, float& c3, const uint32_t* a, const uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// --- in kernels for warp groups, which only sm_90a has: products and copies in the background ------------------------

// Whether code for them can be compiled; else their kernels are empty, and filters see to it that nobody comes there.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define OTGEN_WARP_GROUPS 1
#else
#define OTGEN_WARP_GROUPS 0
#endif

// The threads of a warp group give up registers, or take what others of the block gave up: each then has kCount.
template <int kCount>
OTGEN_DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCount));
}
template <int kCount>
OTGEN_DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kCount));
}

OTGEN_DEVICE unsigned shared_address(const void* at) { return unsigned(__cvta_generic_to_shared(at)); }

// What this thread has written to shared memory is there, after the next barrier, for what works in the background.
OTGEN_DEVICE void publish() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// A barrier in shared memory that not everybody need wait at (an mbarrier). Its phases 0, 1, ... end one after the
// other: each when as many threads have arrived as it wants, and all the bytes that they said to expect.
struct Signal {
  uint64_t state;
};

// One thread, which then publishes.
OTGEN_DEVICE void begin_signal(Signal& signal, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(&signal)), "r"(arrivals) : "memory");
}
OTGEN_DEVICE void arrive(Signal& signal) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(&signal)) : "memory");
}
OTGEN_DEVICE void arrive_expecting(Signal& signal, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(&signal)), "r"(bytes)
               : "memory");
}
// Until the phase with this parity has ended, which is the one in progress or the one before.
OTGEN_DEVICE void wait_for(Signal& signal, int parity) {
  unsigned ended = 0;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(ended)
                 : "r"(shared_address(&signal)), "r"(parity)
                 : "memory");
  } while (ended == 0);
}

// Copies from global to shared memory and counts the bytes at the signal as they come; all three are multiples of 16.
OTGEN_DEVICE void copy_bulk(void* to, const void* from, int bytes, Signal& signal) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&signal))
               : "memory");
}

// The accumulators of a product in the order of its registers, b = 0, ..., 15.
#define OTGEN_FOUR(b)                                                                                  \
  "+f"(s[b / 8 * 2][b % 8 * 2]), "+f"(s[b / 8 * 2][b % 8 * 2 + 1]), "+f"(s[b / 8 * 2 + 1][b % 8 * 2]), \
      "+f"(s[b / 8 * 2 + 1][b % 8 * 2 + 1])
#define OTGEN_ACCUMULATORS                                                                                         \
  OTGEN_FOUR(0), OTGEN_FOUR(1), OTGEN_FOUR(2), OTGEN_FOUR(3), OTGEN_FOUR(4), OTGEN_FOUR(5), OTGEN_FOUR(6),         \
      OTGEN_FOUR(7), OTGEN_FOUR(8), OTGEN_FOUR(9), OTGEN_FOUR(10), OTGEN_FOUR(11), OTGEN_FOUR(12), OTGEN_FOUR(13), \
      OTGEN_FOUR(14), OTGEN_FOUR(15)
#define OTGEN_MULTIPLY(more, a, b)                                                                                   \
  asm volatile(                                                                                                      \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                                                   \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "                                                       \
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,"  \
      "%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55," \
      "%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, p, 1, 1, 0, 0;\n}\n"                                              \
      : OTGEN_ACCUMULATORS                                                                                           \
      : "l"(a), "l"(b), "r"(int(more))                                                                               \
      : "memory")

// Where the matrix unit finds rows of 64 bfloat16: where group_place says.
OTGEN_DEVICE uint64_t describe_rows(const uint16_t* v) {
  constexpr uint64_t kEightRows = 8 * kGroupDepth * sizeof(uint16_t), kSwizzle128Bytes = uint64_t(1) << 62;
  return kSwizzle128Bytes | kEightRows >> 4 << 32 | uint64_t(1) << 16 | uint64_t((shared_address(v) & 0x3FFFF) >> 4);
}

// Begins s += a b^T on the matrix unit, or s = a b^T without `more`, by the four warps of a warp group together: a
// (64, 64) and b (128, 64) bfloat16 in shared memory, from multiples of 1024 bytes on, elements where group_place says.
// Row 16 w + l / 4 + 8 (i % 2) of the product and column 8 (t / 2 + 8 (i / 2)) + 2 (l % 4) + t % 2 are s[i][t] of lane
// l of warp w. Until it has been waited for, s is nobody's to look at, and a and b must stay.
OTGEN_DEVICE void begin_product(float (&s)[4][16], const uint16_t* a, const uint16_t* b, bool more) {
  const uint64_t at_a = describe_rows(a), at_b = describe_rows(b);
  warp_barrier();                                      // the instructions want whole warps
  asm volatile("" : OTGEN_ACCUMULATORS : : "memory");  // all of them are in registers now
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#pragma unroll
  for (int k = 0; k < kGroupDepth; k += 16)  // 32 bytes, in units of 16
    OTGEN_MULTIPLY(more || k > 0, at_a + k / 8, at_b + k / 8);
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

// Waits for what this warp group has begun, which is s or nothing: the compiler cannot follow more through a loop.
OTGEN_DEVICE void wait_for_product(float (&s)[4][16]) {
  warp_barrier();
  asm volatile("wgmma.wait_group.sync.aligned 0;\n" : OTGEN_ACCUMULATORS : : "memory");
}

// --- around kernels --------------------------------------------------------------------------------------------------

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": CUDA says " + cudaGetErrorString(error));
}

// The caller's device is the current one while this lives. One that already is stays untouched: to set a device is to
// make a context on it, which takes hundreds of megabytes where there was none.
class OnDevice {
 public:
  explicit OnDevice(const Run& run) : here_(run.device) {
    check_cuda(cudaGetDevice(&before_), "otgen");
    if (before_ != here_) check_cuda(cudaSetDevice(here_), "otgen");
  }
  ~OnDevice() {
    if (before_ != here_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;

 private:
  int here_, before_ = 0;
};

inline cudaStream_t stream_of(const Run& run) { return static_cast<cudaStream_t>(run.stream); }

// Whether there are warp groups: on this GPU, and in this build, which is then one for 90a.
inline bool has_warpgroups(const Run& run) {
  int major = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, run.device), "otgen");
#if defined(OTGEN_WGMMA)
  return major == 9;
#else
  return false;
#endif
}

// Bytes of shared memory that a block may have.
inline int64_t shared_limit(const Run& run) {
  int bytes = 0;
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, run.device), "otgen");
  return bytes;
}

// Starts blocks 0, ..., blocks - 1 of a kernel on the caller's stream and checks that they were accepted. The last
// argument is for the emulation: the shared memory of the GPUs that the kernel is for.
template <class P>
void launch(const char* name, void (*kernel)(P), int64_t blocks, int threads, size_t shared_bytes, const Run& run,
            const P& params, int64_t = 0) {
  if (blocks == 0) return;
  if (blocks > 0x7FFFFFFF) throw std::runtime_error(std::string(name) + ": too many blocks for one launch");
  constexpr size_t kAlwaysGranted = 48 << 10;
  if (shared_bytes > kAlwaysGranted)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)), name);
  void* arguments[] = {const_cast<P*>(&params)};
  check_cuda(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(unsigned(blocks)), dim3(unsigned(threads)),
                              arguments, shared_bytes, stream_of(run)),
             name);
}

inline void fill_zero(void* at, size_t bytes, const Run& run) {
  check_cuda(cudaMemsetAsync(at, 0, bytes, stream_of(run)), "otgen: fill");
}

// Waits for the stream and copies to the host.
inline void read_back(void* to, const void* from, size_t bytes, const Run& run) {
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_of(run)), "otgen: read");
  check_cuda(cudaStreamSynchronize(stream_of(run)), "otgen: read");
}

// A point in the stream that the host can wait for.
class Mark {
 public:
  Mark() = default;
  ~Mark() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  Mark(const Mark&) = delete;
  void set(const Run& run) {
    if (event_ == nullptr) check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "otgen: event");
    check_cuda(cudaEventRecord(event_, stream_of(run)), "otgen: event");
  }
  void wait() { check_cuda(cudaEventSynchronize(event_), "otgen: event"); }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace otgen

#endif
