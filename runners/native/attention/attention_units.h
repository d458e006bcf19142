// The builds of one unit of attention, one per vector type.
#pragma once

#include "attention_unit.h"

namespace farm::kernels {

struct UnitPlace {
  const Attention* problem;
  const Cut* cut;
  int64_t batch;
  int64_t kv_head;
  int64_t first_token;
  int64_t tokens;
  int64_t first_key;
  int64_t last_key;
};

// `scratch` holds Cut::scratch_floats.
using UnitFunction = void (*)(const UnitPlace& place, const Partial& out, float* scratch);

namespace portable {
void attention_unit(const UnitPlace& place, const Partial& out, float* scratch);
}
namespace avx2 {
void attention_unit(const UnitPlace& place, const Partial& out, float* scratch);
}
namespace neon {
void attention_unit(const UnitPlace& place, const Partial& out, float* scratch);
}

}  // namespace farm::kernels
