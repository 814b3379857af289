#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace otgen {
namespace {

std::vector<const Isa*> runnable() {
  std::vector<const Isa*> all = {&kScalar};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(&kAvx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    all.push_back(&kAvx512);
#if defined(OTGEN_AMX)
  if (all.back() == &kAvx512 && amx_permitted()) all.push_back(&kAmx);
#endif
#endif
  return all;
}

const Isa* find(const std::string& name) {
  std::string names;
  for (const Isa* candidate : runnable()) {
    if (name == candidate->name) return candidate;
    names += std::string(names.empty() ? "" : ", ") + candidate->name;
  }
  throw std::invalid_argument("OTGEN_ISA: this machine runs " + names + ", got '" + name + "'");
}

const Isa* initial() {
  const char* wanted = std::getenv("OTGEN_ISA");
  return wanted != nullptr && *wanted != '\0' ? find(wanted) : runnable().back();
}

std::atomic<const Isa*>& chosen() {
  static std::atomic<const Isa*> isa{initial()};
  return isa;
}

}  // namespace

const Isa& isa() { return *chosen().load(); }

const Isa& isa_for(int64_t d) {
#if defined(OTGEN_AMX) && defined(__x86_64__)
  constexpr int64_t kFewest = 12;  // measured: below it AVX-512 is faster (bench/ops.py)
  if (&isa() == &kAmx && d < kFewest) return kAvx512;
#endif
  return isa();
}

std::vector<const char*> available_isas() {
  std::vector<const char*> names;
  for (const Isa* candidate : runnable()) names.push_back(candidate->name);
  return names;
}

void set_isa(const char* name) { chosen() = find(name); }

}  // namespace otgen
