// What this machine could do at most: the rate of the filter's multiply-adds without any memory traffic.
#include <chrono>
#include <vector>

#include "cpu.h"
#include "isa/isa.h"
#include "threads.h"

namespace otgen {

double peak_gflops(int threads) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kLong = std::chrono::milliseconds(100);
  constexpr int64_t kRounds = 1 << 16;
  std::vector<double> rates(static_cast<size_t>(threads));
  parallel_for(threads, {threads, {}}, [&](int64_t b, int) {
    const auto start = Clock::now();
    int64_t flop = 0;
    while (Clock::now() - start < kLong) flop += isa().busy(kRounds);
    rates[b] = double(flop) / std::chrono::duration<double>(Clock::now() - start).count() / 1e9;
  });
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum;
}

}  // namespace otgen
