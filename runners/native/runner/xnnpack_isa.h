// Other code of XNNPACK on the same CPU: a control that tells the choice of code from hardware.
#pragma once

#include <string>

namespace farm::runner {

// Hides from XNNPACK what this CPU has beyond `isa`: avx2, avx or sse. Libraries look at the CPU
// before main, so this process starts itself anew with `argv`; returns in the second one.
// Empty: all that this CPU has, as ExecuTorch ships it.
// Throws Failure (bad_request) where this machine or build can't, or the environment says other.
void limit_xnnpack(const std::string& isa, char** argv);

}  // namespace farm::runner
