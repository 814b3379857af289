#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace otgen {
namespace {

// Slowest first.
std::vector<const Isa*> runnable() {
  std::vector<const Isa*> all = {&kBaseline};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) all.push_back(&avx2_isa());
  if (avx512) all.push_back(&kAvx512);
#if defined(OTGEN_VNNI)
  const bool avx512_vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (avx2 && avx_vnni_present()) all.push_back(&avx_vnni_isa());
  if (avx512_vnni) all.push_back(&avx512_vnni_isa());
#if defined(OTGEN_AMX)
  // VNNI takes over in few dimensions.
  if (avx512_vnni && amx_permitted()) {
    const std::initializer_list<const Isa*> both = {&amx_int8_isa(), &amx_isa()};  // in no measured order
    all.insert(kTilesEmulated ? all.begin() + 1 : all.end(), both);
  }
#endif
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

const Isa& isa_for(int64_t d, int64_t k, bool with_images, bool floats) {
  const Isa* best = &isa();
  const auto fits = [&] {
    const Range range = with_images ? best->meant.images : k == 1 ? best->meant.best : best->meant.more;
    return range.first <= d && d <= range.last && (!floats || best->packing == Packing::kFloat32);
  };
  while (best->other != nullptr && !fits()) best = best->other;
  return *best;
}

std::vector<const char*> available_isas() {
  std::vector<const char*> names;
  for (const Isa* candidate : runnable()) names.push_back(candidate->name);
  return names;
}

void set_isa(const char* name) { chosen() = find(name); }

}  // namespace otgen
