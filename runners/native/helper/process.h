// Processes of a job, found through /proc: children of a supervisor, and what carries its mark.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace farm::helper {

// The environment variable that every process of a job inherits: the job's random token.
constexpr const char* kMark = "FARM_JOB";

// Start time of a process in clock ticks; with the pid it names one process for ever in one boot.
// 0 when there is no such process or it is a zombie.
long long start_ticks(pid_t pid);

// All descendants of `ancestor`, wherever they moved their session or group to.
std::vector<pid_t> descendants(pid_t ancestor);

// Processes that carry the token in their environment or stand in that folder.
std::vector<pid_t> marked(const std::string& token, const std::string& folder);

}  // namespace farm::helper
