// Our kernels of the custom operators of ExecuTorch's Llama export.
#pragma once

namespace farm::kernels {

// Selects the order of accumulation in llama::custom_sdpa for all calls that follow; 0 is normal.
void set_order(int order);

}  // namespace farm::kernels
