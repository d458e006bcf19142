// The verbs of farm-helper. Each prints JSON on stdout, or throws farm::Failure.
#pragma once

#include <string>
#include <vector>

#include "../common/json.h"

namespace farm::helper {

using Words = std::vector<std::string>;

void print(const json::Value& value);

// File of a work folder with the process ids of the arms of `turns`, a line each.
constexpr const char* kPids = "pids";

void probe(const Words& words);
void hash(const Words& words);
void have(const Words& words);
void commit(const Words& words);
void compact(const Words& words);
void connect_socket(const Words& words);
void deployment(const Words& words);
void evict(const Words& words);
void assemble(const Words& words);
void gc(const Words& words);
void lease(const Words& words);
void supervise(const Words& words);
void poll(const Words& words);
void kill_job(const Words& words);
void clean(const Words& words);
void telemetry(const Words& words);
void turns(const Words& words);

}  // namespace farm::helper
