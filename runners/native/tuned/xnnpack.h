// Lends XNNPACK our code for 4-bit weights.
#pragma once

#include <string>
#include <vector>

namespace farm::kernels {

// From now on new delegates use our products with 4-bit weights and our packing of them where they are
// faster: on AVX2, AVX-512 with products of bytes, and AMX, with a version of the library that is
// known, and only after they gave the same bits as XNNPACK's own in trials. Returns the names of what
// is in use.
std::vector<std::string> speed_up_xnnpack();

}  // namespace farm::kernels
