// The filtered search: see filter.cu.
#pragma once

#include "products.h"
#include "search.h"

namespace otgen {

constexpr int64_t kFilterBest = 2;  // as many best targets as a filter can look for

template <class X, class T>
void search_filtered(const Samples<X>& samples, const Targets<T>& targets, const Run& run);

}  // namespace otgen
