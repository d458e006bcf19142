// `supervise`: keeps one job, and every process it ever starts, within its bounds. The supervisor
// sleeps in poll(2) until the job prints, ends, or its heartbeat could be stale: it costs a timed
// window nothing.
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>

#include "../common/posix.h"
#include "args.h"
#include "process.h"
#include "store.h"
#include "telemetry.h"
#include "verbs.h"
#include "work.h"

namespace farm::helper {
namespace {

constexpr int kGraceMs = 1000;

struct Pipe {
  Fd read;
  Fd write;
  Pipe() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) throw system_failure("no_pipe", "cannot make a pipe");
    read.reset(fds[0]);
    write.reset(fds[1]);
  }
};

struct Plan {
  std::string work;
  double stale_s;
  int64_t max_output;
  std::vector<std::string> environment;
  std::vector<std::string> command;
  TelemetryPlan telemetry;
  // Names this start: asked for again, it isn't made again.
  std::string token;
};

std::string random_token() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) {
    throw system_failure("no_random", "cannot draw a token");
  }
  std::string token;
  for (const unsigned char byte : bytes) {
    token += "0123456789abcdef"[byte >> 4];
    token += "0123456789abcdef"[byte & 15];
  }
  return token;
}

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGCHLD, SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  return set;
}

// Runs in the new process; reports the errno of a failed start through `report`.
[[noreturn]] void become_job(const Plan& plan, const std::string& token, pid_t supervisor, int out,
                             int err, int report) {
  const auto give_up = [&] {
    const int error = errno;
    if (write(report, &error, sizeof error) < 0) _exit(126);
    _exit(127);
  };
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != supervisor) _exit(127);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  const int null = open("/dev/null", O_RDONLY);
  if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) give_up();
  if (null > 2) close(null);
  if (chdir(plan.work.c_str()) != 0) give_up();
  setenv(kMark, token.c_str(), 1);
  for (const std::string& entry : plan.environment) {
    const size_t equals = entry.find('=');
    setenv(entry.substr(0, equals).c_str(), entry.c_str() + equals + 1, 1);
  }
  std::vector<char*> argv;
  for (const std::string& word : plan.command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  give_up();
  _exit(127);
}

// One output of the job, copied to a file up to the limit.
class Stream {
 public:
  Stream(const std::string& path, int64_t limit)
      : path_(path), file_(open_file(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)), left_(limit) {}

  Fd& job_end() { return pipe_.write; }
  int fd() const { return pipe_.read.get(); }
  void started() {
    pipe_.write.reset();
    fcntl(pipe_.read.get(), F_SETFL, O_NONBLOCK);
  }

  // Copies what is there now. Returns the reason to end the job, or "".
  std::string copy() {
    char buffer[65536];
    while (pipe_.read) {
      const ssize_t got = read(pipe_.read.get(), buffer, sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return "";
      if (got == 0) {
        pipe_.read.reset();
        return "";
      }
      const size_t keep = static_cast<size_t>(std::min<int64_t>(got, left_));
      left_ -= static_cast<int64_t>(keep);
      try {
        write_all(file_.get(), buffer, keep, path_);
      } catch (const Failure& failure) {
        return failure.code() == "storage_full" ? "storage_full" : "work_lost";
      }
      if (keep < static_cast<size_t>(got)) return "output_limit";
    }
    return "";
  }

 private:
  std::string path_;
  Fd file_;
  Pipe pipe_;
  int64_t left_;
};

class Supervisor {
 public:
  explicit Supervisor(const Plan& plan)
      : plan_(plan),
        out_(plan.work + "/stdout", plan.max_output),
        err_(plan.work + "/stderr", plan.max_output) {
    const sigset_t set = handled_signals();
    sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_.reset(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    if (!signals_) throw system_failure("no_signalfd", "cannot watch signals");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (plan.telemetry.interval_s > 0) {
      telemetry_ = std::make_unique<Telemetry>(plan.work, plan.telemetry);
    }
  }

  pid_t start() {
    beat(plan_.work);
    if (telemetry_) telemetry_->calibrate();
    status_.supervisor = getpid();
    status_.supervisor_start = start_ticks(getpid());
    status_.boot = boot_id();
    status_.token = plan_.token;
    status_.stale_s = plan_.stale_s;
    status_.started_ns = boottime_ns();
    Pipe report;
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid < 0) throw system_failure("no_fork", "cannot start a process");
    if (pid == 0) {
      become_job(plan_, status_.token, parent, out_.job_end().get(), err_.job_end().get(),
                 report.write.get());
    }
    status_.pid = pid;
    report.write.reset();
    out_.started();
    err_.started();
    int error = 0;
    if (read(report.read.get(), &error, sizeof error) == sizeof error) {
      waitpid(pid, nullptr, 0);
      errno = error;
      throw system_failure("cannot_start", "cannot start " + plan_.command[0]);
    }
    write_status(plan_.work, status_);
    return pid;
  }

  void run() {
    std::string reason;
    watch([&] { telemetry_->start(status_.pid); });
    while (!ended_ && reason.empty()) {
      wait(ms_until_stale());
      reason = step();
      if (reason.empty() && !ended_) reason = stale();
    }
    if (!ended_) end(SIGTERM);
    end(SIGKILL);
    out_.copy();
    err_.copy();
    // Of a job that failed nobody asks how warm it was.
    if (reason.empty() && status_.exit_code == 0) watch([&] { telemetry_->finish(); });
    record(reason);
  }

 private:
  // Telemetry that can't be had costs its guards, never the job.
  template <class Step>
  void watch(const Step& step) {
    if (!telemetry_) return;
    try {
      step();
    } catch (const Failure&) {
      telemetry_.reset();
    }
  }

  void wait(int timeout_ms) const {
    pollfd entries[3] = {{signals_.get(), POLLIN, 0}, {out_.fd(), POLLIN, 0}, {err_.fd(), POLLIN, 0}};
    ::poll(entries, 3, timeout_ms);
  }

  // Handles what happened; returns the reason to end the job, or "".
  std::string step() {
    std::string reason;
    signalfd_siginfo info;
    while (read(signals_.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) reason = "killed";
    }
    for (Stream* stream : {&out_, &err_}) {
      const std::string why = stream->copy();
      if (reason.empty()) reason = why;
    }
    reap();
    return reason;
  }

  void reap() {
    int state = 0;
    for (pid_t pid = 0; (pid = waitpid(-1, &state, WNOHANG)) > 0;) {
      if (pid != status_.pid) continue;
      ended_ = true;
      if (WIFEXITED(state)) status_.exit_code = WEXITSTATUS(state);
      if (WIFSIGNALED(state)) status_.signal = WTERMSIG(state);
    }
  }

  int ms_until_stale() const {
    const int64_t beat_ns = std::max<int64_t>(last_beat(plan_.work), 0);
    const int64_t left = beat_ns + static_cast<int64_t>(plan_.stale_s * 1e9) - boottime_ns();
    return static_cast<int>(std::clamp<int64_t>(left / 1000000 + 1, 0, 600000));
  }

  std::string stale() const {
    const int64_t beat_ns = last_beat(plan_.work);
    if (beat_ns < 0) return "work_lost";
    const bool late = boottime_ns() - beat_ns > static_cast<int64_t>(plan_.stale_s * 1e9);
    return late ? "stale_heartbeat" : "";
  }

  // Signals the group and all descendants. SIGTERM is followed by the grace, SIGKILL is repeated
  // until nothing is left, since a process may fork while it is looked for.
  void end(int signal) {
    const int64_t deadline = monotonic_ns() + (signal == SIGKILL ? 10000 : kGraceMs) * 1000000LL;
    bool first = true;
    while (monotonic_ns() < deadline) {
      if (first || signal == SIGKILL) {
        kill(-status_.pid, signal);
        for (const pid_t pid : descendants(getpid())) kill(pid, signal);
      }
      first = false;
      reap();
      if (descendants(getpid()).empty()) return;
      wait(20);
      out_.copy();
      err_.copy();
    }
  }

  void record(const std::string& reason) {
    reap();
    status_.state = reason.empty() ? "exited" : "killed";
    status_.reason = reason.empty() && status_.signal > 0 ? "signal" : reason;
    status_.ended_ns = boottime_ns();
    write_status(plan_.work, status_);
  }

  const Plan& plan_;
  Stream out_;
  Stream err_;
  Fd signals_;
  std::unique_ptr<Telemetry> telemetry_;
  Status status_;
  bool ended_ = false;
};

// Who asked may be gone, with the connection that it came by. The job lives on: it asks again.
void tell(int fd, const std::string& text) {
  try {
    write_all(fd, text.data(), text.size(), "pipe");
  } catch (const Failure&) {
    return;
  }
}

json::Value pids(pid_t job, pid_t supervisor) {
  return json::Value::object()
      .set("pid", static_cast<int>(job))
      .set("supervisor_pid", static_cast<int>(supervisor));
}

// The daemon: reports the job's pid or the reason of a failed start, then lives as long as the job.
// Holds the lock of the start until its status is there, whatever becomes of who asked.
[[noreturn]] void live(const Plan& plan, Fd report, Fd lock) {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd < 3; ++fd) dup2(null, fd);
  for (int fd = 3; fd < 1024; ++fd) {
    if (fd != report.get() && fd != lock.get()) close(fd);
  }
  try {
    if (chdir("/") != 0) throw system_failure("no_root", "cannot leave the folder");
    Supervisor supervisor(plan);
    const pid_t pid = supervisor.start();
    lock.reset();
    tell(report.get(), pids(pid, getpid()).dump());
    report.reset();
    supervisor.run();
  } catch (const Failure& failure) {
    if (report) {
      tell(report.get(), json::Value::object()
                             .set("code", failure.code())
                             .set("message", failure.message())
                             .dump());
    }
    _exit(1);
  }
  _exit(0);
}

std::string answer_of(const Plan& plan, const FileLock& lock) {
  Pipe report;
  const pid_t middle = fork();
  if (middle < 0) throw system_failure("no_fork", "cannot start a process");
  if (middle == 0) {
    setsid();
    const pid_t daemon = fork();
    if (daemon == 0) live(plan, std::move(report.write), Fd(lock.get()));
    _exit(daemon < 0 ? 1 : 0);
  }
  report.write.reset();
  waitpid(middle, nullptr, 0);
  std::string answer;
  char buffer[4096];
  for (ssize_t got = 0; (got = read(report.read.get(), buffer, sizeof buffer)) > 0;) {
    answer.append(buffer, static_cast<size_t>(got));
  }
  return answer;
}

Plan make_plan(const Args& args) {
  char real[PATH_MAX];
  const std::string work = args.text("work");
  if (!realpath(work.c_str(), real)) throw system_failure("no_work", "no work folder " + work);
  Plan plan{real, args.seconds("stale-s"), args.integer("max-output-bytes"), {}, args.command(), {},
            args.text("start", "")};
  if (plan.token.empty()) plan.token = random_token();
  if (args.has("env")) plan.environment = read_environment();
  if (args.has("telemetry-s")) plan.telemetry.interval_s = args.seconds("telemetry-s");
  plan.telemetry.root = args.text("telemetry-root", "");
  return plan;
}

}  // namespace

void supervise(const Words& words) {
  const Args args(words, Syntax{{"work", "stale-s", "max-output-bytes", "root", "run", "epoch", "telemetry-s",
                                "telemetry-root", "start"},
                               {"env"}, 0, 0, true});
  const Plan plan = make_plan(args);
  if (args.has("run")) check_fence(args.text("root"), args.text("run"), args.text("epoch"));
  const FileLock lock(plan.work + "/start.lock");
  Status before;
  const bool known = read_status(plan.work, before);
  if (known && before.token == plan.token) {
    // The answer to an earlier call was lost on its way.
    print(pids(before.pid, before.supervisor));
    return;
  }
  if (known && before.supervised()) throw Failure("busy", "a job already runs in " + plan.work);
  const std::string answer = answer_of(plan, lock);
  if (answer.empty()) throw Failure("no_supervisor", "the supervisor ended without a word");
  const json::Value value = json::parse(answer);
  const json::Value* code = value.find("code");
  if (code) throw Failure(code->as_string(), value.find("message")->as_string());
  print(value);
}

}  // namespace farm::helper
