// What a request asks of a loaded model: logits, a greedy continuation, timed windows.
#pragma once

#include <string>

#include "counters.h"
#include "model.h"
#include "request.h"

namespace farm::runner {

// Throws Failure before any work when a part of the request doesn't fit the model.
void check_request(const Request& request, const Model& model);

// Token ids for timed work: the text of the request over and over, or a fixed sequence.
std::vector<int64_t> workload(const Request& request, const Model& model, int64_t count);

// Writes DIR/logits-<name>.f32 and prints a `logits` line per pass.
void run_logits(const Request& request, Model& model, const std::string& folder);

// Prints a `generated` line.
void run_generate(const Generate& generate, Model& model);

// Prints a `sample` line per window. Nothing is printed, written or allocated by us inside one.
void run_measure(const Measure& measure, const Request& request, Model& model,
                 const Counters& counters);

}  // namespace farm::runner
