// The state of one job in its work folder: status.json and heartbeat.
#pragma once

#include <sys/types.h>

#include <string>

#include "../common/json.h"

namespace farm::helper {

struct Status {
  std::string state = "running";  // running, exited or killed
  int exit_code = -1;             // -1: none
  int signal = 0;                 // 0: none
  // Why it was killed: stale_heartbeat, output_limit, storage_full, killed, work_lost,
  // supervisor_lost; `signal` when a signal from elsewhere ended it. Empty after a plain exit.
  std::string reason;
  pid_t pid = 0;
  pid_t supervisor = 0;
  long long supervisor_start = 0;
  std::string boot;
  std::string token;
  double stale_s = 0;
  int64_t started_ns = 0;
  int64_t ended_ns = 0;

  json::Value to_json() const;
  // Whether the supervisor that wrote this still lives.
  bool supervised() const;
};

// False when the folder holds no readable status.
bool read_status(const std::string& work, Status& out);
void write_status(const std::string& work, const Status& status);

void beat(const std::string& work);
// Boot time in ns of the last heartbeat; -1 when there is none.
int64_t last_beat(const std::string& work);

// Ends a job whatever became of its supervisor, and records how it ended. Idempotent.
Status end_job(const std::string& work, const std::string& reason);

}  // namespace farm::helper
