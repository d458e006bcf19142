// `telemetry`: the state of a device, as lines. Sampling beside a job runs at idle priority, so
// that it takes what the job leaves; the fixed work runs only while no job does.
#include "telemetry.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <vector>

#include "../common/posix.h"
#include "args.h"
#include "calibrate.h"
#include "sensors.h"
#include "verbs.h"

namespace farm::helper {
namespace {

constexpr int kCalibrationMs = 200;
constexpr off_t kMostBytes = 8 << 20;  // some hours of samples

void sleep_for(double seconds) {
  timespec left{static_cast<time_t>(seconds), static_cast<long>(std::fmod(seconds, 1.0) * 1e9)};
  while (nanosleep(&left, &left) != 0) {
  }
}

void become_idle() {
  const sched_param none{};
  if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) setpriority(PRIO_PROCESS, 0, 19);
}

std::string line(const json::Value& value) { return value.dump() + "\n"; }

// Processes that a job named as those that do its work.
std::vector<pid_t> named(const std::string& path) {
  std::string text;
  std::vector<pid_t> found;
  if (!read_text(path, 4096, text)) return found;
  for (size_t from = 0, to = 0; (to = text.find('\n', from)) != std::string::npos; from = to + 1) {
    const int pid = std::atoi(text.c_str() + from);
    if (pid > 0) found.push_back(static_cast<pid_t>(pid));
  }
  return found;
}

}  // namespace

Telemetry::Telemetry(const std::string& folder, TelemetryPlan plan)
    : folder_(folder), path_(folder + "/telemetry.jsonl"), plan_(std::move(plan)) {
  // Of a launch before this one.
  unlink((folder_ + "/" + kPids).c_str());
  open_file(path_, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
}

void Telemetry::write(const std::string& lines) const {
  const Fd file = open_file(path_, O_WRONLY | O_APPEND | O_NOFOLLOW);
  if (lseek(file.get(), 0, SEEK_END) > kMostBytes) return;
  write_all(file.get(), lines.data(), lines.size(), path_);
}

void Telemetry::calibrate() { write(line(helper::calibrate(plan_.root, kCalibrationMs))); }

void Telemetry::start(pid_t job) {
  // What is counted from here on needs a first reading that waits for nobody: of a device that is
  // out of CPU time the sampler, which is idle, may get none while the job runs.
  read_once();
  const pid_t supervisor = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw system_failure("no_fork", "cannot start the sampler");
  if (pid > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != supervisor) _exit(0);
  live(job);
}

void Telemetry::live(pid_t job) const {
  for (int fd = 3; fd < 1024; ++fd) close(fd);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  become_idle();
  try {
    Sensors sensors(plan_.root, job);
    write(line(sensors.describe(plan_.interval_s)));
    while (true) {
      if (sensors.add_processes(named(folder_ + "/" + kPids))) {
        write(line(sensors.describe(plan_.interval_s)));
      }
      write(line(sensors.sample(false)));
      sleep_for(plan_.interval_s);
    }
  } catch (const std::exception&) {
    _exit(1);  // the file can't be written: the job's own files can't either, and it will tell
  }
}

void Telemetry::finish() {
  // The sampler may have been ended inside a line.
  write("\n");
  read_once();
  calibrate();
}

void Telemetry::read_once() const {
  Sensors sensors(plan_.root, 0);
  write(line(sensors.describe(plan_.interval_s)) + line(sensors.sample(true)));
}

void telemetry(const Words& words) {
  const Args args(words, Syntax{{"root", "count", "interval-s", "pid"}, {"calibrate"}, 0, 0});
  const std::string root = args.text("root", "");
  const double interval_s = args.has("interval-s") ? args.seconds("interval-s") : 0.5;
  const int64_t count = args.integer("count", 1);
  if (args.has("calibrate")) print(calibrate(root, kCalibrationMs));
  Sensors sensors(root, static_cast<pid_t>(args.integer("pid", 0)));
  print(sensors.describe(interval_s));
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) sleep_for(interval_s);
    print(sensors.sample(count == 1));
  }
}

}  // namespace farm::helper
