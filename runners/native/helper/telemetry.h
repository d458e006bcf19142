// Telemetry of one job: lines written beside it, before it starts, while it runs and after it.
#pragma once

#include <sys/types.h>

#include <string>

namespace farm::helper {

struct TelemetryPlan {
  double interval_s = 0;  // 0: none
  std::string root;       // the device's own files when empty
};

class Telemetry {
 public:
  // Writes DIR/telemetry.jsonl; throws Failure when that can't be made.
  Telemetry(const std::string& folder, TelemetryPlan plan);

  // Fixed work, before the job starts or after it ended: never beside it.
  void calibrate();

  // Starts a process of the lowest priority that samples until it is killed.
  void start(pid_t job);

  // One full sample and the fixed work once more, after the sampler's end.
  void finish();

 private:
  [[noreturn]] void live(pid_t job) const;
  // All sensors, by the supervisor itself.
  void read_once() const;
  void write(const std::string& lines) const;

  std::string folder_;
  std::string path_;
  TelemetryPlan plan_;
};

}  // namespace farm::helper
