// One loop over blocks for all kernels: std::thread, because torch brings the only OpenMP runtime of the process.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "../common.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace otgen {

// Scores are defined with denormals kept, whatever the caller's thread has set.
class KeepDenormals {
 public:
#if defined(__x86_64__)
  KeepDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~0x8040u); }  // flush-to-zero, denormals-are-zero
  ~KeepDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  KeepDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ & ~0x1000001ull));  // FZ of results and inputs, FIZ of inputs alone
  }
  ~KeepDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  unsigned long long saved_;
#else
  KeepDenormals() {}
#endif
};

// Calls body(block, thread) for block = 0, ..., blocks - 1, in no certain order, with thread < run.threads; the calling
// thread takes part, and polls. Throws what a body threw, or Cancelled.
inline void parallel_for(int64_t blocks, const Run& run, const std::function<void(int64_t, int)>& body) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  std::vector<std::exception_ptr> errors(run.threads);
  using Clock = std::chrono::steady_clock;
  constexpr auto kPollEvery = std::chrono::milliseconds(100);

  auto work = [&](int thread) {
    const KeepDenormals guard;
    auto polled = Clock::now();
    try {
      for (int64_t b; !stop.load(std::memory_order_relaxed) && (b = next.fetch_add(1)) < blocks;) {
        body(b, thread);
        if (thread != 0 || run.poll.keep_going == nullptr || Clock::now() - polled < kPollEvery) continue;
        polled = Clock::now();
        if (!run.poll.keep_going(run.poll.self, double(b + 1) / double(blocks))) throw Cancelled{};
      }
    } catch (...) {
      errors[thread] = std::current_exception();
      stop = true;
    }
  };

  std::vector<std::thread> helpers;
  helpers.reserve(size_t(run.threads));
  try {
    for (int t = 1; t < run.threads && t < blocks; ++t) helpers.emplace_back(work, t);
  } catch (const std::exception&) {
    // The system starts no more threads: fewer will do.
  }
  work(0);
  for (auto& helper : helpers) helper.join();
  for (auto& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace otgen
