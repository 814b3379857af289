// Plain C++, for every processor; compilers make what they can of the short loops.
#include <algorithm>

#include "../../random.h"
#include "isa.h"

namespace otgen {
namespace scalar {

struct Vec {
  using Lane = float;
  static constexpr int kProducts = 1;  // multiply-adds in a lane
  static constexpr int kWidth = 4;
  static constexpr uint32_t kAllLanes = 0xF;
  float v[kWidth];
  static Vec load(const float* p) { return {p[0], p[1], p[2], p[3]}; }
  static Vec broadcast(const float* p) { return {*p, *p, *p, *p}; }
  void store(float* p) const {
    for (int i = 0; i < kWidth; ++i) p[i] = v[i];
  }
};

static inline Vec mul_add(Vec a, Vec b, Vec c) {
  for (int i = 0; i < Vec::kWidth; ++i) c.v[i] += a.v[i] * b.v[i];
  return c;
}
static inline Vec add(Vec a, Vec b) {
  for (int i = 0; i < Vec::kWidth; ++i) a.v[i] += b.v[i];
  return a;
}
static inline Vec sub(Vec a, Vec b) {
  for (int i = 0; i < Vec::kWidth; ++i) a.v[i] -= b.v[i];
  return a;
}
static inline Vec min(Vec a, Vec b) {
  for (int i = 0; i < Vec::kWidth; ++i) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return a;
}
// As processors have it: b where either is not a number.
static inline Vec max(Vec a, Vec b) {
  for (int i = 0; i < Vec::kWidth; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
static inline uint32_t below(Vec a, Vec b) {
  uint32_t bits = 0;
  for (int i = 0; i < Vec::kWidth; ++i) bits |= uint32_t(a.v[i] < b.v[i]) << i;
  return bits;
}
static inline Vec one_where_below(Vec a, Vec b) {
  for (int i = 0; i < Vec::kWidth; ++i) a.v[i] = a.v[i] < b.v[i] ? 1.0f : 0.0f;
  return a;
}
static inline float largest(Vec a) {
  const float x = a.v[0] > a.v[1] ? a.v[0] : a.v[1], y = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
  return x > y ? x : y;
}

constexpr int kGroup = 12;
constexpr int kVectors = 2;
constexpr int kTargets = 6;

#include "floats.inl"

}  // namespace scalar

constinit const Isa kScalar = scalar::table("scalar");

}  // namespace otgen
