// Packs the weights of 4-bit linears in place of XNNPACK.
#pragma once

#include "xnnpack_operator.h"

#ifdef FARM_XNNPACK_TABLE
namespace farm::kernels {

// What comparisons of both packings found.
struct PackingProof {
  size_t compared = 0;
  size_t unequal = 0;
};

// From now on weights are packed twice and the bytes compared; XNNPACK's are what counts. Only for a
// table that packs as known.
void compare_packing(Table& table);
PackingProof packing_proof();

// From now on ours packs what it can: blocks of a multiple of 32, one group.
void lend_packing(Table& table);

// XNNPACK packs again, as before `compare_packing`.
void return_packing(Table& table);

}  // namespace farm::kernels
#endif
