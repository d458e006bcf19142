// A loaded model behind a Unix socket: one client at a time, the others wait in line.
#pragma once

#include <functional>
#include <string>

#include "model.h"

namespace farm::runner {

// Answers requests until the process is ended. A client gets what `greet` prints, then for each line
// that it sends, a request with `generate` alone, the lines of that request up to `done` or `error`.
// One that sends no whole request, or doesn't read, for `idle_s` is told so and ended.
// Throws Failure when the socket can't be had.
[[noreturn]] void serve(const std::string& path, Model& model, double idle_s,
                        const std::function<void()>& greet);

}  // namespace farm::runner
