// The runner's stdout: one JSON object a line, nothing else.
#pragma once

#include "../common/failure.h"
#include "../common/json.h"

namespace farm::runner {

// {"type": type, ...members}
void print_line(const char* type, const json::Value& members);

// The `error` line of a failure.
void report(const Failure& failure);

int64_t peak_rss_bytes();

}  // namespace farm::runner
