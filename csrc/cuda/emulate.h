// The device layer on the host, for tests: blocks run one after the other, each thread of a block as a fiber of its own
// that goes on until it waits for the others. So barriers and warp operations are real, and every run is the same. What
// goes on in the background is done at once in some blocks and as late as is allowed in others, so that a wait that is
// missing shows. What this cannot show are races that a barrier would not order anyway, speed, and launch limits.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
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
#define OTGEN_WARP_GROUPS 1

namespace otgen {

constexpr int kWarp = 32;
constexpr int64_t kManyBlocks = 3;  // little, so that small tests have several parts and slabs
constexpr int64_t kSlabRows = 512;
constexpr int64_t kSlabBytes = 1 << 20;
constexpr int64_t kSlabWork = int64_t(1) << 42;

namespace emulator {

enum class Wait { kNothing, kWarp, kBlock, kSignal, kForever };

constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kSlotBytes = 64;  // the largest value that lanes exchange
constexpr size_t kSharedAlign = 1024;
constexpr size_t kGuard = 64 << 10;  // bytes behind a block's shared memory, which nobody may write to
constexpr unsigned char kFilling = 0xC5;

// What an mbarrier keeps: see device.h.
struct Signal {
  int wanted, missing;  // arrivals
  int bytes;            // expected, and not there yet
  int phase;

  void step() {
    if (missing < 0) throw std::logic_error("emulate: more have arrived than the signal wants");
    if (missing == 0 && bytes == 0) ++phase, missing = wanted;
  }
};

struct Copy {
  void* to;
  const void* from;
  int bytes;
  Signal* signal;
};

struct Product {
  float (*s)[16];
  const uint16_t *a, *b;
  bool more;
};

struct Fiber {
  jmp_buf context;
  bool started = false;
  std::unique_ptr<char[]> stack;
  Wait wait = Wait::kForever;
  int exchanges = 0;
  std::vector<std::pair<void*, const void*>> copies;  // begun in the background
  std::vector<Product> products;                      // likewise
  const Signal* signal = nullptr;                     // waited for, and the parity of the phase that must have ended
  int parity = 0;
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
    memory.resize(shared_bytes + kSharedAlign + kGuard);
    std::memset(memory.data(), kFilling, memory.size());  // nothing is zero by luck
    shared = memory.data() + (kSharedAlign - uintptr_t(memory.data()) % kSharedAlign) % kSharedAlign;
    for (Fiber& fiber : fibers) fiber.wait = Wait::kNothing, fiber.copies.clear(), fiber.products.clear();
    bulk.clear();
    running() = this;
    while (step()) {
    }
    if (error) std::rethrow_exception(error);
    const char* end = shared + shared_bytes;
    if (std::any_of(end, end + kGuard, [](char c) { return static_cast<unsigned char>(c) != kFilling; }))
      throw std::logic_error("emulate: a block has written past its shared memory");
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

  void wait_for(const Signal& signal, int parity) {
    fibers[thread].signal = &signal, fibers[thread].parity = parity;
    wait(Wait::kSignal);
  }

  // As early as is allowed in even blocks, so that what was still to be read is gone; as late as is allowed in odd
  // ones, when nobody can go on without it.
  void copy_bulk(const Copy& copy) {
    bulk.push_back(copy);
    if (index % 2 == 0) copy_next();
  }

  // The other way round, so that a product either finds what is not there yet, or what has come since.
  void begin_product(const Product& product) {
    fibers[thread].products.push_back(product);
    if (index % 2 != 0) end_products();
  }
  void end_products();

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
  char* shared = nullptr;

 private:
  void copy_next() {
    const Copy copy = bulk.front();
    bulk.pop_front();
    std::memcpy(copy.to, copy.from, size_t(copy.bytes));
    copy.signal->bytes -= copy.bytes;
    copy.signal->step();
  }

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
      Fiber& fiber = fibers[thread];
      if (fiber.wait == Wait::kSignal && fiber.signal->phase % 2 != fiber.parity) fiber.wait = Wait::kNothing;
      if (fiber.wait != Wait::kNothing) continue;
      ran = true;
      resume(fiber);
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
    if (!ran && !bulk.empty()) {
      copy_next();
      return true;
    }
    if (!ran) error = std::make_exception_ptr(std::logic_error("emulate: threads wait at different places"));
    return ran;
  }

  const std::function<void()>* body = nullptr;
  std::vector<Fiber> fibers;
  std::vector<char> slots, memory;
  std::deque<Copy> bulk;  // begun in the background
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
  return *reinterpret_cast<S*>(emulator::block().shared);
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
inline int atomic_max(int* at, int v) {
  const int before = *at;
  *at = std::max(before, v);
  return before;
}
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

// --- in kernels for warp groups
// ---------------------------------------------------------------------------------------

inline void publish() {}
template <int kCount>
void give_registers() {}
template <int kCount>
void take_registers() {}

using emulator::Signal;

inline void begin_signal(Signal& signal, int arrivals) { signal = {arrivals, arrivals, 0, 0}; }
inline void arrive_expecting(Signal& signal, int bytes) {
  --signal.missing, signal.bytes += bytes;
  signal.step();
}
inline void arrive(Signal& signal) { arrive_expecting(signal, 0); }
inline void wait_for(Signal& signal, int parity) { emulator::block().wait_for(signal, parity); }

inline void copy_bulk(void* to, const void* from, int bytes, Signal& signal) {
  if (uintptr_t(to) % 16 != 0 || uintptr_t(from) % 16 != 0 || bytes % 16 != 0)
    throw std::logic_error("emulate: a copy must begin and end at multiples of 16");
  emulator::block().copy_bulk({to, from, bytes, &signal});
}

inline void begin_product(float (&s)[4][16], const uint16_t* a, const uint16_t* b, bool more) {
  if (uintptr_t(a) % emulator::kSharedAlign != 0 || uintptr_t(b) % emulator::kSharedAlign != 0)
    throw std::logic_error("emulate: a product's matrices must begin at multiples of 1024");
  warp_barrier();
  emulator::block().begin_product({s, a, b, more});
}

inline void wait_for_product(float (&)[4][16]) {
  warp_barrier();
  emulator::block().end_products();
}

inline void multiply_now(const emulator::Product& p) {
  // In units of 16 bytes, the lowest three bits of an address have the next three added, which number the row: what the
  // PTX manual calls a swizzle of 128 bytes.
  const auto value = [](const uint16_t* v, int row, int k) {
    const int unit = (row * kGroupDepth + k) / 8;
    return value_of_bfloat16(v[(unit ^ (unit >> 3 & 7)) * 8 + k % 8]);
  };
  for (int i = 0; i < 4; ++i)
    for (int t = 0; t < 16; ++t) {
      const int row = warp_index() % 4 * 16 + lane_index() / 4 + i % 2 * 8;
      const int column = 8 * (t / 2 + 8 * (i / 2)) + 2 * (lane_index() % 4) + t % 2;
      float& s = p.s[i][t];
      if (!p.more) s = 0;
      for (int step = 0; step < kGroupDepth; step += 16) {
        double addend[17];
        for (int k = 0; k < 16; ++k) addend[k] = value(p.a, row, step + k) * value(p.b, column, step + k);
        addend[16] = s;
        s = coarse_sum(addend);
      }
    }
}

inline void emulator::Block::end_products() {
  for (const Product& product : fibers[thread].products) multiply_now(product);
  fibers[thread].products.clear();
}

// --- around kernels --------------------------------------------------------------------------------------------------

struct OnDevice {
  explicit OnDevice(const Run&) {}
};

inline bool has_warpgroups(const Run&) { return true; }

inline int64_t shared_limit(const Run&) { return 99 << 10; }  // the least of all GPUs from sm_80 on: that of sm_86

template <class P>
void launch(const char* name, void (*kernel)(P), int64_t blocks, int threads, size_t shared_bytes, const Run& run,
            const P& params, int64_t limit = 0) {
  if (int64_t(shared_bytes) > std::max(limit, shared_limit(run)))
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
