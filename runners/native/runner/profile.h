// Where the time of a call goes, by ExecuTorch's event tracer; in the profiling build only.
#pragma once

#include <memory>
#include <string>

#include "model.h"
#include "request.h"

namespace farm::runner {

constexpr bool has_profiler() {
#ifdef ET_EVENT_TRACER_ENABLED
  return true;
#else
  return false;
#endif
}

// A tracer when the request asks for a profile, else null. Throws Failure no_profiler in a build
// without one.
std::unique_ptr<executorch::runtime::EventTracer> make_tracer(const Request& request);

// Writes DIR/profile-<name>-<rep>.etdp, an ETDump with one block a call of the window, and prints a
// `profile` line per repetition. `tracer` is the one the model was loaded with.
void run_profile(const Measure& measure, const Request& request, Model& model,
                 executorch::runtime::EventTracer* tracer, const std::string& folder);

}  // namespace farm::runner
