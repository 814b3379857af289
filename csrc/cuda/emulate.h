// The device layer on the host, for tests: blocks run one after the other, each thread of a block as a fiber of its own
// that goes on until it waits for the others. So barriers and warp operations are real, and every run is the same; what
// this cannot show are races that a barrier would not order anyway, speed, and launch limits.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../common.h"
#include "../cpu/threads.h"

#define OTGEN_KERNEL(...) void
#define OTGEN_DEVICE static inline
#define OTGEN_DEVICE_CALLED static inline
#define OTGEN_CONSTANT const
#define OTGEN_DEVICE_MEMBER

namespace otgen {

constexpr int kWarp = 32;
constexpr int64_t kManyBlocks = 3;  // little, so that small tests have several parts and slabs
constexpr int64_t kSlabRows = 256;
constexpr int64_t kSlabBytes = 1 << 20;
constexpr int64_t kSlabWork = int64_t(1) << 42;

namespace emulator {

enum class Wait { kNothing, kWarp, kBlock, kForever };

constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kSlotBytes = 64;  // the largest value that lanes exchange

struct Fiber {
  jmp_buf context;
  bool started = false;
  std::unique_ptr<char[]> stack;
  Wait wait = Wait::kForever;
  int exchanges = 0;
  std::vector<std::pair<void*, const void*>> copies;  // begun in the background
};

// Suspends one fiber (or the scheduler) and goes on with another. Unlike swapcontext, without a call to the system.
__attribute__((noinline)) inline void change(jmp_buf& from, jmp_buf& to) {
  if (_setjmp(from) == 0) _longjmp(to, 1);
}

class Block {
 public:
  explicit Block(int threads) : fibers(threads), slots(threads * 2 * kSlotBytes) {
    if (threads % kWarp != 0) throw std::logic_error("emulate: a block must be whole warps");
    for (Fiber& fiber : fibers) fiber.stack.reset(new char[kStackBytes]);
  }

  // Fibers and their stacks are kept for the next launch.
  static Block& of(int threads) {
    static thread_local std::map<int, std::unique_ptr<Block>> blocks;
    auto& block = blocks[threads];
    if (!block || block->error) block.reset(new Block(threads));
    return *block;
  }

  void run(int64_t block, size_t shared_bytes, const std::function<void()>& kernel) {
    index = block;
    body = &kernel;
    shared.resize(shared_bytes / sizeof(max_align_t) + 1);
    std::memset(shared.data(), 0xC5, shared.size() * sizeof(max_align_t));  // nothing is zero by luck
    for (Fiber& fiber : fibers) fiber.wait = Wait::kNothing, fiber.copies.clear();
    running() = this;
    while (step()) {
    }
    if (error) std::rethrow_exception(error);
  }

  // Called by a fiber: lets the others go on until all of its warp or block have come here.
  void wait(Wait what) {
    Fiber& fiber = fibers[thread];
    fiber.wait = what;
    change(fiber.context, scheduler);
  }

  void copy_later(void* to, const void* from) { fibers[thread].copies.emplace_back(to, from); }

  // As late as is allowed, so that what was not waited for is not there.
  void copy_now() {
    for (const auto& [to, from] : fibers[thread].copies) std::memcpy(to, from, 16);
    fibers[thread].copies.clear();
  }

  // The values that all lanes of the caller's warp brought.
  template <class V>
  const V* exchange(const V& v) {
    static_assert(sizeof(V) <= kSlotBytes);
    const int phase = fibers[thread].exchanges++ % 2;  // the values before these may still be read
    char* base = slots.data() + ((thread / kWarp) * 2 + phase) * kWarp * kSlotBytes;
    std::memcpy(base + thread % kWarp * sizeof(V), &v, sizeof(V));
    wait(Wait::kWarp);
    return reinterpret_cast<const V*>(base);
  }

  static Block*& running() {
    static thread_local Block* block = nullptr;
    return block;
  }

  int64_t index = 0;
  int thread = 0;
  std::vector<max_align_t> shared;

 private:
  // A fiber's life: one thread of every block.
  static void enter() {
    Block& block = *running();
    while (true) {
      try {
        (*block.body)();
      } catch (...) {
        block.error = std::current_exception();
      }
      block.wait(Wait::kForever);
    }
  }

  void resume(Fiber& fiber) {
    if (fiber.started) return change(scheduler, fiber.context);
    fiber.started = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = kStackBytes;
    makecontext(&context, enter, 0);
    if (_setjmp(scheduler) == 0) setcontext(&context);
  }

  // Runs every fiber that need not wait, forwards in even blocks and backwards in odd ones, so that nothing can lean on
  // an order; then opens the barriers that all have reached. False when all fibers have ended.
  bool step() {
    const int count = int(fibers.size());
    bool ran = false;
    for (int i = 0; i < count; ++i) {
      thread = index % 2 == 0 ? i : count - 1 - i;
      if (fibers[thread].wait != Wait::kNothing) continue;
      ran = true;
      resume(fibers[thread]);
      if (error) return false;
    }
    const auto all = [&](int first, int last, Wait what) {
      return std::all_of(fibers.begin() + first, fibers.begin() + last, [&](const Fiber& f) { return f.wait == what; });
    };
    const auto open = [&](int first, int last) {
      for (int i = first; i < last; ++i) fibers[i].wait = Wait::kNothing;
    };
    if (all(0, count, Wait::kForever)) return false;
    if (all(0, count, Wait::kBlock)) {
      open(0, count);
      return true;
    }
    for (int first = 0; first < count; first += kWarp)
      if (all(first, first + kWarp, Wait::kWarp)) open(first, first + kWarp);
    if (!ran) error = std::make_exception_ptr(std::logic_error("emulate: threads wait at different places"));
    return ran;
  }

  const std::function<void()>* body = nullptr;
  std::vector<Fiber> fibers;
  std::vector<char> slots;
  jmp_buf scheduler;
  std::exception_ptr error;
};

inline Block& block() { return *Block::running(); }

}  // namespace emulator

// --- in kernels ------------------------------------------------------------------------------------------------------

inline int thread_index() { return emulator::block().thread; }
inline int64_t block_index() { return emulator::block().index; }
inline int lane_index() { return thread_index() % kWarp; }
inline int warp_index() { return thread_index() / kWarp; }
inline void barrier() { emulator::block().wait(emulator::Wait::kBlock); }
inline void warp_barrier() { emulator::block().wait(emulator::Wait::kWarp); }

template <class S>
S& shared() {
  return *reinterpret_cast<S*>(emulator::block().shared.data());
}

template <class V>
V shuffle(V v, int lane) {
  return emulator::block().exchange(v)[lane];
}

template <class V>
V shuffle_xor(V v, int mask) {
  return shuffle(v, lane_index() ^ mask);
}

inline uint32_t ballot(bool v) {
  const bool* lanes = emulator::block().exchange(v);
  uint32_t bits = 0;
  for (int l = 0; l < kWarp; ++l) bits |= uint32_t(lanes[l]) << l;
  return bits;
}
inline int count_bits(uint32_t v) { return __builtin_popcount(v); }

template <class V>
V atomic_add(V* at, V v) {
  const V before = *at;
  *at += v;
  return before;
}
inline void atomic_max(int* at, int v) { *at = std::max(*at, v); }
inline int fresh(const int* at) { return *at; }

inline float bits_as_float(int v) {
  float f;
  std::memcpy(&f, &v, sizeof f);
  return f;
}
inline int float_as_bits(float f) {
  int v;
  std::memcpy(&v, &f, sizeof v);
  return v;
}

inline void copy_16(void* to, const void* from) {
  if (uintptr_t(to) % 16 != 0 || uintptr_t(from) % 16 != 0)
    throw std::logic_error("emulate: 16 bytes must begin at a multiple of 16");
  emulator::block().copy_later(to, from);
}
inline void copy_wait() { emulator::block().copy_now(); }

template <class V>
void load_16(const V* from, V* to) {
  if (uintptr_t(from) % 16 != 0) throw std::logic_error("emulate: 16 bytes must begin at a multiple of 16");
  std::memcpy(to, from, 16);
}

// The matrix unit as coarse as products.h's bound allows it to be, without the bound's margin: all addends are cut off
// below 2^-23 of the largest, their sum is cut off to float32.
inline float coarse_sum(const double (&addend)[17]) {
  double largest = 0, plain = 0;
  for (int k = 0; k < 16; ++k) largest = std::max(largest, std::abs(addend[k])), plain += addend[k];
  if (largest == 0 && plain == 0) return float(addend[16]);  // padding
  largest = std::max(largest, std::abs(addend[16])), plain += addend[16];
  if (!(largest < INFINITY && plain == plain)) return float(plain);  // as plain arithmetic has it
  int exponent = 0;
  std::frexp(largest, &exponent);
  const double unit = std::ldexp(1.0, exponent - 1 - 23), inverse = std::ldexp(1.0, 23 + 1 - exponent);
  int64_t units = 0;
  for (double v : addend) units += int64_t(v * inverse);
  const double sum = double(units) * unit;
  const float rounded = float(sum);
  return std::abs(double(rounded)) > std::abs(sum) ? std::nextafter(rounded, 0.0f) : rounded;
}

inline double value_of_bfloat16(uint32_t v) { return double(bits_as_float(int(v << 16))); }

inline void multiply_bfloat16(float& c0, float& c1, float& c2, float& c3, const uint32_t* a, const uint32_t* b) {
  struct Fragments {
    uint32_t a[4], b[2];
  };
  const Fragments* lanes = emulator::block().exchange(Fragments{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
  const auto value = [](uint32_t pair, int half) { return value_of_bfloat16(half == 0 ? pair & 0xFFFF : pair >> 16); };
  float* out[4] = {&c0, &c1, &c2, &c3};
  for (int i = 0; i < 4; ++i) {
    const int row = lane_index() / 4 + i / 2 * 8, column = lane_index() % 4 * 2 + i % 2;
    double addend[17];
    for (int k = 0; k < 16; ++k)
      addend[k] = value(lanes[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2) *
                  value(lanes[column * 4 + k % 8 / 2].b[k / 8], k % 2);
    addend[16] = *out[i];
    *out[i] = coarse_sum(addend);
  }
}

inline void publish() {}

constexpr int kGroupDepth = 64;

inline void multiply_warpgroup(float (&s)[4][16], const uint16_t* a, const uint16_t* b) {
  const auto value = [](const uint16_t* v, int row, int k) {
    return value_of_bfloat16(v[row / 8 * (kGroupDepth * 8) + k / 8 * 64 + row % 8 * 8 + k % 8]);
  };
  for (int step = 0; step < kGroupDepth; step += 16)
    for (int i = 0; i < 4; ++i)
      for (int t = 0; t < 16; ++t) {
        const int row = warp_index() % 4 * 16 + lane_index() / 4 + i % 2 * 8;
        const int column = 8 * (t / 2 + 8 * (i / 2)) + 2 * (lane_index() % 4) + t % 2;
        double addend[17];
        for (int k = 0; k < 16; ++k) addend[k] = value(a, row, step + k) * value(b, column, step + k);
        addend[16] = s[i][t];
        s[i][t] = coarse_sum(addend);
      }
}

// --- around kernels --------------------------------------------------------------------------------------------------

struct OnDevice {
  explicit OnDevice(const Run&) {}
};

inline bool has_warpgroups(const Run&) { return true; }

inline int64_t shared_limit(const Run&) { return 99 << 10; }  // the least of all GPUs from sm_80 on: that of sm_86

template <class P>
void launch(const char* name, void (*kernel)(P), int64_t blocks, int threads, size_t shared_bytes, const Run& run,
            const P& params) {
  if (int64_t(shared_bytes) > shared_limit(run))
    throw std::logic_error(std::string(name) + ": more shared memory than every GPU has");
  const KeepDenormals guard;  // as GPUs do
  emulator::Block& block = emulator::Block::of(threads);
  for (int64_t b = 0; b < blocks; ++b) block.run(b, shared_bytes, [&] { kernel(params); });
}

inline void fill_zero(void* at, size_t bytes, const Run&) { std::memset(at, 0, bytes); }
inline void read_back(void* to, const void* from, size_t bytes, const Run&) { std::memcpy(to, from, bytes); }

struct Mark {
  void set(const Run&) {}
  void wait() {}
};

}  // namespace otgen
