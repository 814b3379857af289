// Making samples on the device; sample.cu for the caller, measure.cu for itself.
#pragma once

#include <algorithm>

#include "../params.h"
#include "device.h"

namespace otgen {

void make_samples(const SampleParams& p);

}  // namespace otgen
