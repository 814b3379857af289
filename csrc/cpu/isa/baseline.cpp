// Vectors of four floats as GCC and Clang know them, for every processor.
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "../../random.h"
#include "isa.h"

namespace otgen {
namespace baseline {

struct Vec {
  using Lane = float;
  using Floats [[gnu::vector_size(16)]] = float;
  static constexpr int kProducts = 1;  // multiply-adds in a lane
  static constexpr int kWidth = 4;
  static constexpr uint32_t kAllLanes = 0xF;
  Floats v;
  static Vec load(const float* p) { return {Floats{p[0], p[1], p[2], p[3]}}; }
  static Vec broadcast(const float* p) { return {Floats{*p, *p, *p, *p}}; }
  void store(float* p) const {
    for (int i = 0; i < kWidth; ++i) p[i] = v[i];
  }
};

static inline Vec mul_add(Vec a, Vec b, Vec c) {
#if defined(__aarch64__)
  return {vfmaq_f32(c.v, a.v, b.v)};
#else
  return {a.v * b.v + c.v};
#endif
}
static inline Vec add(Vec a, Vec b) { return {a.v + b.v}; }
static inline Vec sub(Vec a, Vec b) { return {a.v - b.v}; }
// As processors have it: b where either is not a number.
static inline Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
static inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
static inline uint32_t below(Vec a, Vec b) {
  const auto less = a.v < b.v;  // 0 or -1
  return uint32_t(-less[0] - 2 * less[1] - 4 * less[2] - 8 * less[3]);
}
static inline Vec one_where_below(Vec a, Vec b) {
  const Vec::Floats one = {1.0f, 1.0f, 1.0f, 1.0f}, none = {};
  return {a.v < b.v ? one : none};
}
static inline float largest(Vec a) {
  const float x = a.v[0] > a.v[1] ? a.v[0] : a.v[1], y = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
  return x > y ? x : y;
}

constexpr int kGroup = 12;
constexpr int kVectors = 2;
constexpr int kTargets = 6;

#include "floats.inl"

}  // namespace baseline

constinit const Isa kBaseline = baseline::table("baseline");

}  // namespace otgen
