// Memory for weights that a token streams through once: large pages spare a tenth of decode.
#pragma once

#include <cstdint>

namespace farm::kernels {

// Prepares the heap so that about `bytes` allocated next lie in large pages where the kernel offers
// them. False where malloc can't be told so; the kernel may refuse all the same.
bool prefer_large_pages(int64_t bytes);

}  // namespace farm::kernels
