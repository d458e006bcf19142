// The portable build of one unit of attention.
#include "attention_units.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "vec_portable.h"

namespace farm::kernels::portable {

#include "attention_kernel.inl"

void attention_unit(const UnitPlace& place, const Partial& out, float* scratch) {
  const Unit unit{*place.problem, *place.cut, place.batch, place.kv_head, place.first_token,
                  place.tokens, place.first_key, place.last_key};
  run_unit(unit, out, scratch);
}

}  // namespace farm::kernels::portable

