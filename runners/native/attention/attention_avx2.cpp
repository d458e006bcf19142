// The avx2 build of one unit of attention.
#include "attention_units.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include "vec_avx2.h"

namespace farm::kernels::avx2 {

#include "attention_kernel.inl"

void attention_unit(const UnitPlace& place, const Partial& out, float* scratch) {
  const Unit unit{*place.problem, *place.cut, place.batch, place.kv_head, place.first_token,
                  place.tokens, place.first_key, place.last_key};
  run_unit(unit, out, scratch);
}

}  // namespace farm::kernels::avx2
#pragma clang attribute pop
#pragma GCC pop_options
#endif
