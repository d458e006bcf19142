// `turns`: two jobs that are loaded at once and work window by window, A B B A; the other one is
// stopped meanwhile. It runs under `supervise` like any job, prints what the first arm prints, and what
// the second one does after its name.
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fcntl.h>

#include <cerrno>
#include <csignal>

#include "../common/posix.h"
#include "args.h"
#include "verbs.h"

namespace farm::helper {
namespace {

constexpr size_t kMaxPlanBytes = 1 << 20;
constexpr size_t kMaxLineBytes = 16 << 20;

// What an arm said that it does next.
struct Window {
  std::string metric;
  int64_t rep = 0;
  bool warmup = false;

  bool operator==(const Window& other) const {
    return metric == other.metric && rep == other.rep && warmup == other.warmup;
  }
};

[[noreturn]] void refuse(const std::string& what) {
  throw Failure("bad_plan", "the plan of turns: " + what);
}

const json::Value& member(const json::Value& value, const char* name, json::Value::Kind kind) {
  const json::Value* found = value.find(name);
  if (found == nullptr || !found->is(kind)) refuse(std::string("no ") + name);
  return *found;
}

std::vector<std::string> texts(const json::Value& value, const char* name) {
  std::vector<std::string> found;
  for (const json::Value& item : member(value, name, json::Value::Kind::Array).items()) {
    if (!item.is(json::Value::Kind::String)) refuse(std::string(name) + " holds no text");
    found.push_back(item.as_string());
  }
  return found;
}

class Arm {
 public:
  explicit Arm(const json::Value& value)
      : name_(member(value, "name", json::Value::Kind::String).as_string()),
        folder_(member(value, "folder", json::Value::Kind::String).as_string()),
        prefix_(member(value, "prefix", json::Value::Kind::String).as_string()),
        argv_(texts(value, "argv")),
        environment_(texts(value, "env")) {
    if (argv_.empty()) refuse(name_ + " has no command");
    for (const std::string& entry : environment_) {
      if (entry.find('=') == std::string::npos) refuse("an entry of env has no '='");
    }
  }

  // Starts it and lets it load, until it waits for its first turn.
  void start() {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
      throw system_failure("no_pipe", "cannot make a pipe");
    }
    Fd in_read(in[0]), out_write(out[1]);
    in_.reset(in[1]);
    out_.reset(out[0]);
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ < 0) throw system_failure("no_fork", "cannot start a process");
    if (pid_ == 0) become(parent, in_read.get(), out_write.get());
    in_read.reset();
    out_write.reset();
    until_turn();
    halt();
  }

  // One window, while the other arm is stopped.
  void turn() {
    kill(pid_, SIGCONT);
    write_all(in_.get(), "\n", 1, name_);
    until_turn();
    halt();
  }

  bool ended() const { return ended_; }
  const Window& next() const { return next_; }
  pid_t pid() const { return pid_; }

 private:
  [[noreturn]] void become(pid_t parent, int in, int out) const {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || chdir(folder_.c_str()) != 0) _exit(126);
    for (const std::string& entry : environment_) {
      const size_t equals = entry.find('=');
      setenv(entry.substr(0, equals).c_str(), entry.c_str() + equals + 1, 1);
    }
    std::vector<char*> words;
    for (const std::string& word : argv_) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    execvp(words[0], words.data());
    _exit(127);
  }

  // Stopped for sure: threads that spin for work after a window would use the other one's cores.
  void halt() {
    if (ended_) return;
    kill(pid_, SIGSTOP);
    int state = 0;
    while (waitpid(pid_, &state, WUNTRACED) < 0) {
      if (errno != EINTR) throw system_failure("no_child", "cannot wait for " + name_);
    }
    if (!WIFSTOPPED(state)) fail(state);
  }

  void until_turn() {
    char buffer[65536];
    while (!take_line()) {
      const ssize_t got = read(out_.get(), buffer, sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        end();
        return;
      }
      text_.append(buffer, static_cast<size_t>(got));
      if (text_.size() > kMaxLineBytes) throw Failure("bad_output", name_ + " printed no line");
    }
  }

  // Hands on complete lines; true when one of them was a turn.
  bool take_line() {
    for (size_t end = 0; (end = text_.find('\n')) != std::string::npos;) {
      const std::string line = text_.substr(0, end + 1);
      text_.erase(0, end + 1);
      if (line.rfind("{\"type\":\"turn\"", 0) != 0) {
        const std::string whole = prefix_ + line;
        write_all(STDOUT_FILENO, whole.data(), whole.size(), "stdout");
        continue;
      }
      const json::Value value = json::parse(line.substr(0, end));
      next_ = {member(value, "metric", json::Value::Kind::String).as_string(),
               member(value, "rep", json::Value::Kind::Int).as_int(),
               member(value, "warmup", json::Value::Kind::Bool).as_bool()};
      return true;
    }
    return false;
  }

  void end() {
    int state = 0;
    while (waitpid(pid_, &state, 0) < 0) {
      if (errno != EINTR) throw system_failure("no_child", "cannot wait for " + name_);
    }
    ended_ = true;
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0) fail(state);
  }

  [[noreturn]] void fail(int state) const {
    const std::string how = WIFSIGNALED(state)
                                ? "was ended by signal " + std::to_string(WTERMSIG(state))
                                : "ended with exit code " + std::to_string(WEXITSTATUS(state));
    throw Failure("arm_failed", name_ + " " + how);
  }

  std::string name_, folder_, prefix_;
  std::vector<std::string> argv_, environment_;
  pid_t pid_ = 0;
  Fd in_, out_;
  std::string text_;
  Window next_;
  bool ended_ = false;
};

// For the sampler of the supervisor, whose job this process is: the arms compute, not it.
void tell_pids(std::initializer_list<const Arm*> arms) {
  std::string text;
  for (const Arm* arm : arms) {
    if (arm->pid() > 0) text += std::to_string(arm->pid()) + "\n";
  }
  write_atomic(kPids, text);
}

void alternate(Arm& first, Arm& second) {
  for (int64_t round = 0;; ++round) {
    for (Arm* arm : {&first, &second}) {
      while (!arm->ended() && arm->next().warmup) arm->turn();
    }
    if (first.ended() && second.ended()) return;
    if (first.ended() || second.ended() || !(first.next() == second.next())) {
      throw Failure("arms_differ", "the arms have other windows to do");
    }
    const Window window = first.next();
    // A B B A: of two neighbours each is the first one as often as the other.
    for (Arm* arm : {round % 2 == 0 ? &first : &second, round % 2 == 0 ? &second : &first}) {
      // A window that came out too short is done again.
      while (!arm->ended() && arm->next() == window) arm->turn();
    }
  }
}

}  // namespace

void turns(const Words& words) {
  const Args args(words, Syntax{{}, {}, 1, 1});
  std::string text;
  if (!read_text(args.positional()[0], kMaxPlanBytes, text)) {
    throw Failure("no_plan", "cannot read " + args.positional()[0]);
  }
  const json::Value plan = json::parse(text);
  const std::vector<json::Value>& arms = member(plan, "arms", json::Value::Kind::Array).items();
  if (arms.size() != 2) refuse("two arms are needed");
  Arm first(arms[0]), second(arms[1]);
  first.start();
  tell_pids({&first, &second});
  second.start();
  tell_pids({&first, &second});
  alternate(first, second);
}

}  // namespace farm::helper
