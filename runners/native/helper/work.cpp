#include "work.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "../common/posix.h"
#include "args.h"
#include "process.h"
#include "store.h"
#include "verbs.h"

namespace farm::helper {
namespace {

std::string status_path(const std::string& work) { return work + "/status.json"; }

json::Value or_null(bool present, json::Value value) {
  return present ? std::move(value) : json::Value();
}

bool gone(const Status& status) { return !status.supervised(); }

// Waits until `done` holds, looking 50 times a second.
template <class Condition>
bool wait_for(double seconds, Condition done) {
  const int64_t deadline = monotonic_ns() + static_cast<int64_t>(seconds * 1e9);
  while (!done()) {
    if (monotonic_ns() > deadline) return false;
    usleep(20000);
  }
  return true;
}

// Kills what carries the job's mark. A process may fork while it is looked for, hence the rounds.
void sweep(const Status& status, const std::string& work) {
  for (int round = 0; round < 50; ++round) {
    const std::vector<pid_t> left = marked(status.token, work);
    if (left.empty()) return;
    for (const pid_t pid : left) kill(pid, SIGKILL);
    usleep(20000);
  }
  throw Failure("not_killed", "processes of " + work + " can't be ended");
}

// The recorded state, corrected when the supervisor died without a last word.
Status current(const std::string& work) {
  Status status;
  if (!read_status(work, status)) {
    throw Failure("no_job", "no job was started in " + work);
  }
  if (status.state != "running" || status.supervised()) return status;
  if (read_status(work, status) && status.state != "running") return status;
  return end_job(work, "supervisor_lost");
}

int64_t file_size(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) == 0 ? static_cast<int64_t>(info.st_size) : 0;
}

class Watch {
 public:
  explicit Watch(const std::string& work) : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    if (fd_ && inotify_add_watch(fd_.get(), work.c_str(), IN_MODIFY | IN_MOVED_TO) < 0) {
      fd_.reset();
    }
  }

  // Waits for a change in the folder. Looks at least once a second, since a supervisor that is
  // killed changes no file.
  void wait(double seconds) const {
    pollfd entry{fd_.get(), POLLIN, 0};
    const double slice = std::min(seconds, fd_ ? 1.0 : 0.1);
    ::poll(&entry, fd_ ? 1 : 0, static_cast<int>(slice * 1e3) + 1);
    char buffer[4096];
    while (fd_ && read(fd_.get(), buffer, sizeof buffer) > 0) {
    }
  }

 private:
  Fd fd_;
};

std::string work_argument(const Args& args) {
  const std::string work = args.text("work");
  struct stat info{};
  if (lstat(work.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    throw Failure("no_work", "no work folder " + work);
  }
  return work;
}

void send_output(const std::string& path, int64_t offset, int64_t size) {
  if (size == 0) return;
  const Fd fd = open_file(path, O_RDONLY);
  std::vector<char> buffer(1 << 16);
  while (size > 0) {
    const size_t part = static_cast<size_t>(std::min<int64_t>(size, 1 << 16));
    const ssize_t got = pread(fd.get(), buffer.data(), part, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw system_failure("read_failed", "cannot read " + path);
    write_all(STDOUT_FILENO, buffer.data(), static_cast<size_t>(got), "stdout");
    offset += got;
    size -= got;
  }
}

// Whether nobody will ever fetch the results of this folder.
bool abandoned(const std::string& work) {
  Status status;
  if (!read_status(work, status) || !status.supervised()) return true;
  const int64_t beat_ns = last_beat(work);
  return beat_ns < 0 || boottime_ns() - beat_ns > static_cast<int64_t>(status.stale_s * 1e9);
}

void clean_folder(const std::string& work) {
  end_job(work, "killed");
  remove_tree(work);
}

// Removes helpers of other versions of farm beside this one. Their controllers can't be at work:
// whoever asks holds the lease. Names that go on where ours ends are of a copy that somebody, who only
// looks at the device, is bringing now.
int64_t remove_other_helpers() {
  const std::string prefix = "farm-helper-";
  char buffer[4096];
  const ssize_t length = readlink("/proc/self/exe", buffer, sizeof buffer);
  const std::string self(buffer, length > 0 ? static_cast<size_t>(length) : 0);
  const size_t slash = self.rfind('/');
  if (slash == std::string::npos || self.compare(slash + 1, prefix.size(), prefix) != 0) return 0;
  int64_t removed = 0;
  const std::string own = self.substr(slash + 1);
  for (const std::string& name : list_folder(self.substr(0, slash))) {
    if (name.compare(0, prefix.size(), prefix) != 0) continue;
    if (name.compare(0, own.size(), own) == 0) continue;
    if (unlink((self.substr(0, slash + 1) + name).c_str()) == 0) ++removed;
  }
  return removed;
}

}  // namespace

json::Value Status::to_json() const {
  return json::Value::object()
      .set("state", state)
      .set("exit_code", or_null(exit_code >= 0, exit_code))
      .set("signal", or_null(signal > 0, signal))
      .set("reason", or_null(!reason.empty(), reason))
      .set("pid", static_cast<int>(pid))
      .set("supervisor_pid", static_cast<int>(supervisor))
      .set("supervisor_start", supervisor_start)
      .set("boot_id", boot)
      .set("token", token)
      .set("stale_s", stale_s)
      .set("started_boottime_ns", started_ns)
      .set("ended_boottime_ns", or_null(ended_ns > 0, ended_ns));
}

bool Status::supervised() const {
  return supervisor > 0 && boot == boot_id() && start_ticks(supervisor) == supervisor_start;
}

bool read_status(const std::string& work, Status& out) {
  std::string text;
  if (!read_text(status_path(work), 65536, text)) return false;
  try {
    const json::Value value = json::parse(text);
    const json::Value nothing;
    const auto get = [&](const char* name) -> const json::Value& {
      const json::Value* found = value.find(name);
      return found ? *found : nothing;
    };
    const bool exited = get("exit_code").is(json::Value::Kind::Int);
    out.state = get("state").as_string();
    out.exit_code = exited ? static_cast<int>(get("exit_code").as_int()) : -1;
    out.signal = static_cast<int>(get("signal").as_int());
    out.reason = get("reason").as_string();
    out.pid = static_cast<pid_t>(get("pid").as_int());
    out.supervisor = static_cast<pid_t>(get("supervisor_pid").as_int());
    out.supervisor_start = get("supervisor_start").as_int();
    out.boot = get("boot_id").as_string();
    out.token = get("token").as_string();
    out.stale_s = get("stale_s").as_double();
    out.started_ns = get("started_boottime_ns").as_int();
    out.ended_ns = get("ended_boottime_ns").as_int();
    return true;
  } catch (const Failure&) {
    return false;
  }
}

void write_status(const std::string& work, const Status& status) {
  write_atomic(status_path(work), status.to_json().dump() + "\n");
}

void beat(const std::string& work) {
  write_atomic(work + "/heartbeat", std::to_string(boottime_ns()) + "\n");
}

int64_t last_beat(const std::string& work) {
  std::string text;
  if (!read_text(work + "/heartbeat", 64, text)) return -1;
  const int64_t beat_ns = std::atoll(text.c_str());
  return beat_ns > 0 ? beat_ns : -1;
}

Status end_job(const std::string& work, const std::string& reason) {
  Status status;
  const bool started = read_status(work, status);
  if (started && status.supervised()) {
    kill(status.supervisor, SIGTERM);
    if (!wait_for(4, [&] { return gone(status); })) {
      kill(status.supervisor, SIGKILL);
      wait_for(2, [&] { return gone(status); });
    }
    read_status(work, status);
  }
  sweep(status, work);
  if (started && status.state == "running") {
    status.state = "killed";
    status.reason = reason;
    status.ended_ns = boottime_ns();
    write_status(work, status);
  }
  return status;
}

void poll(const Words& words) {
  const Args args(words, Syntax{{"work", "stdout-offset", "wait-s", "max-bytes"}, {}, 0, 0});
  const std::string work = work_argument(args);
  const int64_t offset = args.integer("stdout-offset", 0);
  const int64_t limit = args.integer("max-bytes", 1 << 20);
  const int64_t deadline = monotonic_ns() + static_cast<int64_t>(args.seconds("wait-s") * 1e9);
  const std::string out = work + "/stdout";
  beat(work);
  const Watch watch(work);
  // The state is read before the size: the last output is written before the last state.
  Status status = current(work);
  int64_t size = file_size(out);
  while (status.state == "running" && size <= offset) {
    const double left = static_cast<double>(deadline - monotonic_ns()) / 1e9;
    if (left <= 0) break;
    watch.wait(left);
    status = current(work);
    size = file_size(out);
  }
  const int64_t bytes = std::clamp<int64_t>(size - offset, 0, limit);
  print(status.to_json()
            .set("stdout_size", size)
            .set("stderr_size", file_size(work + "/stderr"))
            .set("bytes", bytes));
  send_output(out, offset, bytes);
}

void kill_job(const Words& words) {
  const Args args(words, Syntax{{"work"}, {}, 0, 0});
  print(end_job(work_argument(args), "killed").to_json());
}

void clean(const Words& words) {
  const Args args(words, Syntax{{"work", "run", "epoch"}, {"stale"}, 1, 1});
  const Store store(args.positional()[0]);
  if (args.has("work") == args.has("stale")) throw Usage("clean needs --work NAME or --stale");
  check_fence(store.root, args.text("run", ""), args.text("epoch", ""));
  // Whoever holds the lease is alone: what still runs is of an attempt that was given up, by a run
  // that had the lease before or by this one, and would be measured along.
  const bool alone = !args.text("run", "").empty();
  json::Value cleaned = json::Value::array();
  const auto remove = [&](const std::string& name) {
    clean_folder(store.work() + "/" + name);
    cleaned.push(name);
  };
  if (args.has("work")) {
    const std::string name = name_argument(args.text("work"));
    if (exists(store.work() + "/" + name)) remove(name);
  } else {
    for (const std::string& name : list_folder(store.work())) {
      if (alone || abandoned(store.work() + "/" + name)) remove(name);
    }
  }
  const int64_t helpers = args.has("stale") ? remove_other_helpers() : 0;
  print(json::Value::object().set("cleaned", cleaned).set("helpers", helpers));
}

}  // namespace farm::helper
