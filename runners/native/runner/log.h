// ExecuTorch's own log: to stderr, bounded, and remembered where it explains an error.
#pragma once

#include <string>

namespace farm::runner {

// Takes the runtime's log and its abort(); call before anything of ExecuTorch runs.
void take_over_log();

// The last errors the runtime wrote, oldest first, joined with "; ". Empty when there were none.
std::string recent_errors();
void forget_errors();

// What an ExecuTorch error number means here, with what the log says about it.
std::string explain(int error);

}  // namespace farm::runner
