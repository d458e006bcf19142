// Which cores the runner may use, and pinning to them.
#pragma once

#include <string>
#include <vector>

#include "request.h"

namespace farm::runner {

// The cores this process may run on now.
std::vector<int> allowed_cores();

// Of these, the faster ones by cpu_capacity or maximum clock; all when they don't differ.
// `sysfs` is /sys, or a made tree.
std::vector<int> performance_cores(const std::vector<int>& cores, const std::string& sysfs);

struct Placement {
  int threads;
  std::vector<int> pinned;  // empty: not pinned
};

// Decides and pins this process; call before the thread pool is made. Throws Failure bad_affinity.
Placement place(const Request& request);

}  // namespace farm::runner
