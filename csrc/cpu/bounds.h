// Units in which the bounds of a search are counted.
#pragma once

#include <limits>

namespace otgen {

constexpr double kUnit32 = 0x1p-24, kUnit64 = 0x1p-53;  // half a unit in the last place of 1
constexpr double kTiny32 = 0x1p-126;                    // the smallest normal float32
constexpr double kTiny64 = 0x1p-1074;                   // the smallest denormal float64
constexpr double kRoundUp = 1 + 0x1p-20;                // covers the few roundings made while a bound is evaluated
constexpr float kInf = std::numeric_limits<float>::infinity();

// To float32, not below the exact value even after the few roundings made while the bound is used.
inline float up(double v) { return float(v * kRoundUp); }

}  // namespace otgen
