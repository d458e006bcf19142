#include "process.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "../common/posix.h"

namespace farm::helper {
namespace {

struct Stat {
  char state = 'X';
  pid_t parent = 0;
  long long start = 0;
};

bool read_stat(pid_t pid, Stat& out) {
  std::string text;
  // The dot: qemu-user answers a program's questions about itself with a made-up /proc/PID/stat,
  // which another process would never see.
  if (!read_text("/proc/./" + std::to_string(pid) + "/stat", 4096, text)) return false;
  // The name in parentheses may itself hold spaces and parentheses.
  const size_t close = text.rfind(')');
  if (close == std::string::npos || close + 2 >= text.size()) return false;
  const char* rest = text.c_str() + close + 2;
  int parent = 0;
  if (std::sscanf(rest, "%c %d", &out.state, &parent) != 2) return false;
  out.parent = parent;
  for (int field = 3; field < 22 && rest; ++field) {
    rest = std::strchr(rest, ' ');
    if (rest) ++rest;
  }
  out.start = rest ? std::atoll(rest) : 0;
  return true;
}

std::vector<pid_t> all_pids() {
  std::vector<pid_t> pids;
  for (const std::string& name : list_folder("/proc")) {
    if (name.find_first_not_of("0123456789") == std::string::npos) {
      pids.push_back(static_cast<pid_t>(std::atol(name.c_str())));
    }
  }
  return pids;
}

// The caller's shell may stand in the very folder that is being cleaned.
std::vector<pid_t> own_ancestors() {
  std::vector<pid_t> found;
  Stat stat;
  for (pid_t pid = getpid(); pid > 1 && read_stat(pid, stat); pid = stat.parent) {
    found.push_back(pid);
  }
  return found;
}

bool inside(const std::string& path, const std::string& folder) {
  return path == folder || path.rfind(folder + "/", 0) == 0;
}

std::string real_path(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) ? buffer : "";
}

}  // namespace

long long start_ticks(pid_t pid) {
  Stat stat;
  if (pid <= 0 || !read_stat(pid, stat) || stat.state == 'Z' || stat.state == 'X') return 0;
  return stat.start;
}

std::vector<pid_t> descendants(pid_t ancestor) {
  std::multimap<pid_t, pid_t> children;
  for (const pid_t pid : all_pids()) {
    Stat stat;
    if (read_stat(pid, stat) && stat.state != 'Z') children.emplace(stat.parent, pid);
  }
  std::vector<pid_t> found;
  std::vector<pid_t> open{ancestor};
  while (!open.empty()) {
    const pid_t parent = open.back();
    open.pop_back();
    const auto range = children.equal_range(parent);
    for (auto it = range.first; it != range.second; ++it) {
      found.push_back(it->second);
      open.push_back(it->second);
    }
  }
  return found;
}

std::vector<pid_t> marked(const std::string& token, const std::string& folder) {
  const std::string mark = std::string(kMark) + "=" + token;
  const std::string real_folder = real_path(folder);
  const std::vector<pid_t> spared = own_ancestors();
  std::vector<pid_t> found;
  for (const pid_t pid : all_pids()) {
    const bool spare = std::find(spared.begin(), spared.end(), pid) != spared.end();
    if (spare || start_ticks(pid) == 0) continue;
    const std::string proc = "/proc/" + std::to_string(pid);
    std::string environment;
    if (!token.empty() && read_text(proc + "/environ", 1 << 20, environment)) {
      const size_t at = environment.find(mark);
      if (at != std::string::npos && (at == 0 || environment[at - 1] == '\0')) {
        found.push_back(pid);
        continue;
      }
    }
    char cwd[PATH_MAX];
    const ssize_t length = readlink((proc + "/cwd").c_str(), cwd, sizeof cwd);
    if (length > 0 && !real_folder.empty() &&
        inside(std::string(cwd, static_cast<size_t>(length)), real_folder)) {
      found.push_back(pid);
    }
  }
  return found;
}

}  // namespace farm::helper
