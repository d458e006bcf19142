// Memory for weights that a token streams through once: large pages spare a tenth of decode.
#pragma once

#include <cstdint>

namespace farm::runner {

// Prepares the heap so that about `bytes` allocated next lie in large pages where the kernel offers
// them. A hint: nothing happens where malloc or kernel don't support it.
void prefer_large_pages(int64_t bytes);

}  // namespace farm::runner
