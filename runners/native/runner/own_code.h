// Code of farm's in the timed path. A build has what its flags name: FARM_OWN_ATTENTION where its
// ExecuTorch has no custom operators, FARM_TUNED in `executorch-tuned` only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace farm::runner {

// "farm", or "executorch" where llama::custom_sdpa and the like are ExecuTorch's own.
const char* attention_origin();

// How many orders of accumulation attention has, and which of them is used from now on.
int attention_orders();
void set_attention_order(int order);

// Puts our code for XNNPACK and memory in use for a model of about that size. Returns its names.
std::vector<std::string> use_tuned_code(int64_t weights_bytes);

}  // namespace farm::runner
