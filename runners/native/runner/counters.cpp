#include "counters.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace farm::runner {
namespace {

// As the kernel writes it for PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING.
struct Reading {
  uint64_t value;
  uint64_t enabled_ns;
  uint64_t running_ns;
};

std::string reason_of(int error) {
  std::string paranoid;
  switch (error) {
    case ENOENT:
    case ENODEV:
    case EOPNOTSUPP:
      return "this processor, or the virtual machine, shows no instruction counter";
    case EACCES:
    case EPERM:
      read_text("/proc/sys/kernel/perf_event_paranoid", 16, paranoid);
      while (!paranoid.empty() && paranoid.back() == '\n') paranoid.pop_back();
      return "the kernel doesn't let this user count (perf_event_paranoid " +
             (paranoid.empty() ? std::string("can't be read") : paranoid) + ")";
    case ENOSYS:
      return "this kernel, or a filter of its calls, has no perf_event_open";
    default:
      return std::string("perf_event_open: ") + std::strerror(error);
  }
}

}  // namespace

Counters::Counters() {
  perf_event_attr wanted{};
  wanted.size = sizeof wanted;
  wanted.type = PERF_TYPE_HARDWARE;
  wanted.config = PERF_COUNT_HW_INSTRUCTIONS;
  wanted.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  wanted.inherit = 1;
  wanted.exclude_kernel = 1;
  wanted.exclude_hv = 1;
  fd_.reset(static_cast<int>(
      syscall(SYS_perf_event_open, &wanted, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!fd_) unread_ = reason_of(errno);
}

int64_t Counters::instructions() const {
  Reading now{};
  if (!fd_ || read(fd_.get(), &now, sizeof now) != sizeof now) return -1;
  if (now.running_ns < now.enabled_ns || now.value == 0) return -1;
  return static_cast<int64_t>(now.value);
}

}  // namespace farm::runner
