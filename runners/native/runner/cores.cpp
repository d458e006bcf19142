#include "cores.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>

#include "../common/posix.h"

namespace farm::runner {
namespace {

long long read_number(const std::string& path) {
  std::string text;
  return read_text(path, 64, text) ? std::atoll(text.c_str()) : 0;
}

// Speed of each core by the first source that knows all of them; empty when none does.
std::vector<long long> speeds(const std::vector<int>& cores, const std::string& sysfs) {
  for (const char* leaf : {"cpu_capacity", "cpufreq/cpuinfo_max_freq"}) {
    std::vector<long long> out;
    for (const int core : cores) {
      out.push_back(
          read_number(sysfs + "/devices/system/cpu/cpu" + std::to_string(core) + "/" + leaf));
    }
    if (std::find(out.begin(), out.end(), 0) == out.end()) return out;
  }
  return {};
}

void pin(const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(static_cast<size_t>(core), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    throw system_failure("bad_affinity", "this process can't be pinned to the cores asked for")
        .with("where", "affinity");
  }
}

}  // namespace

std::vector<int> allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(static_cast<size_t>(core), &set)) cores.push_back(core);
    }
  }
  if (cores.empty()) cores.push_back(0);
  return cores;
}

std::vector<int> performance_cores(const std::vector<int>& cores, const std::string& sysfs) {
  const std::vector<long long> speed = speeds(cores, sysfs);
  if (speed.empty()) return cores;
  const long long lowest = *std::min_element(speed.begin(), speed.end());
  const long long highest = *std::max_element(speed.begin(), speed.end());
  // Prime and big cores count alike; a few percent between equal cores are binning, not a cluster.
  if (lowest * 10 > highest * 8) return cores;
  std::vector<int> out;
  for (size_t i = 0; i < cores.size(); ++i) {
    if (speed[i] * 10 > (lowest + highest) * 5) out.push_back(cores[i]);
  }
  return out;
}

Placement place(const Request& request) {
  const std::vector<int> allowed = allowed_cores();
  const std::vector<int> fast = performance_cores(allowed, "/sys");
  Placement out;
  if (!request.affinity.automatic) {
    out.pinned = request.affinity.cores;
  } else if (fast.size() < allowed.size() && request.threads <= static_cast<int64_t>(fast.size())) {
    out.pinned = fast;
  }
  const size_t usable = out.pinned.empty() ? fast.size() : out.pinned.size();
  out.threads = static_cast<int>(request.threads > 0 ? request.threads : static_cast<int64_t>(usable));
  if (!out.pinned.empty()) pin(out.pinned);
  return out;
}

}  // namespace farm::runner
