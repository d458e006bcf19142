#include "serve.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "../common/posix.h"
#include "output.h"
#include "phases.h"
#include "request.h"

namespace farm::runner {
namespace {

constexpr size_t kMaxLineBytes = 16 << 20;
constexpr int kWaiting = 16;

Fd listening(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw Failure("usage", "the path of the socket is longer than 107 bytes: " + path);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  unlink(path.c_str());  // of a service that was killed
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto* where = reinterpret_cast<const sockaddr*>(&address);
  if (!fd || bind(fd.get(), where, sizeof address) != 0 || listen(fd.get(), kWaiting) != 0) {
    throw system_failure("no_socket", "cannot listen at " + path);
  }
  return fd;
}

// Lines of a client; false at its end. Each has to be whole in time: others wait for their turn.
class Lines {
 public:
  Lines(int fd, double idle_s) : fd_(fd), idle_s_(idle_s) {}

  bool next(std::string& line) {
    const int64_t until = monotonic_ns() + static_cast<int64_t>(idle_s_ * 1e9);
    size_t end = 0;
    while ((end = rest_.find('\n')) == std::string::npos) {
      await(until);
      char buffer[65536];
      const ssize_t got = read(fd_, buffer, sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      rest_.append(buffer, static_cast<size_t>(got));
      if (rest_.size() > kMaxLineBytes) throw Failure("bad_request", "a request is longer than 16 MiB");
    }
    line = rest_.substr(0, end);
    rest_.erase(0, end + 1);
    return true;
  }

 private:
  void await(int64_t until) const {
    pollfd entry{fd_, POLLIN, 0};
    while (true) {
      const int64_t left_ms = (until - monotonic_ns()) / 1000000;
      const int got = left_ms > 0 ? ::poll(&entry, 1, static_cast<int>(left_ms)) : 0;
      if (got > 0) return;
      if (got < 0 && errno != EINTR) throw system_failure("no_poll", "cannot wait for a client");
      if (got == 0) {
        throw Failure("idle", "no whole request within " + std::to_string(std::lround(idle_s_)) +
                                  " s: others wait; connect again");
      }
    }
  }

  int fd_;
  double idle_s_;
  std::string rest_;
};

void answer(const std::string& line, Model& model) {
  const int64_t begun = monotonic_ns();
  const Request request = parse_request(line);
  if (!request.generate.wanted || !request.logits.empty() || !request.measure.empty() ||
      !request.profile.empty()) {
    throw Failure("bad_request", "a service answers `generate` and nothing else").with("where", "generate");
  }
  check_request(request, model);
  run_generate(request.generate, model);
  print_line("done", json::Value::object()
                         .set("peak_rss_bytes", peak_rss_bytes())
                         .set("wall_ns", monotonic_ns() - begun));
}

// The client's next request; false at its end, and where it was told why there is no other one.
bool next_line(Lines& lines, std::string& line) {
  try {
    return lines.next(line);
  } catch (const Failure& failure) {
    report(failure);
    return false;
  }
}

// Lines go to stdout, which is the client while it is served: a write that fails means that it is
// gone, and ends its request within a token.
void serve_one(int client, Model& model, double idle_s, const std::function<void()>& greet) {
  if (dup2(client, STDOUT_FILENO) < 0) throw system_failure("internal", "cannot answer a client");
  // One that doesn't read is as good as gone.
  const timeval limit{static_cast<time_t>(std::ceil(idle_s)), 0};
  if (setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0) {
    throw system_failure("internal", "cannot limit the time of a client");
  }
  greet();
  Lines lines(client, idle_s);
  std::string line;
  while (next_line(lines, line)) {
    try {
      answer(line, model);
    } catch (const Failure& failure) {
      report(failure);  // throws where the client is gone
    }
  }
}

}  // namespace

void serve(const std::string& path, Model& model, double idle_s, const std::function<void()>& greet) {
  const Fd socket = listening(path);
  const Fd own(dup(STDOUT_FILENO));
  while (true) {
    const Fd client(accept4(socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (!client) throw system_failure("no_socket", "cannot accept a client");
    try {
      serve_one(client.get(), model, idle_s, greet);
    } catch (const Failure&) {
      // It went away in the middle; the next one is served.
    }
    dup2(own.get(), STDOUT_FILENO);
  }
}

}  // namespace farm::runner
