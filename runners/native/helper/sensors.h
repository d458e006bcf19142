// What a device tells about its state while something runs on it: clocks, heat, power, throttling.
// Raw text; nothing is interpreted here.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "../common/json.h"

namespace farm::helper {

// First line of a small file; empty when it can't be read.
std::string first_line(const std::string& path);

class Sensors {
 public:
  // Looks for sensors below `root` ("" is the device itself). `pid`: the job, 0 for none.
  Sensors(std::string root, pid_t pid);

  // Adds what these processes compute, once each. True when one is new: `describe` says more now.
  bool add_processes(const std::vector<pid_t>& pids);

  // The line `sensors`: paths in the order in which samples number them, and texts that stay.
  json::Value describe(double interval_s) const;

  // The line `sample`. Sensors that change slowly are read only in every tenth, and when `all`.
  json::Value sample(bool all);

 private:
  struct Sensor {
    std::string path;
    bool slow;
  };
  void find(const char* pattern, bool slow);
  void find_cgroups(pid_t pid);
  void keep(const char* pattern);
  void keep_lines(const char* path, const char* word);

  std::string root_;
  std::vector<Sensor> sensors_;
  json::Value names_ = json::Value::object();
  int64_t count_ = 0;
};

}  // namespace farm::helper
