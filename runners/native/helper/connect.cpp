// stdin to a Unix socket and the socket to stdout: how a host speaks with a program of the device
// through any transport.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "../common/posix.h"
#include "args.h"
#include "verbs.h"

namespace farm::helper {
namespace {

Fd connected(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw Usage("the path of a socket is too long: " + path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw system_failure("no_service", "nobody answers at " + path);
  }
  return fd;
}

}  // namespace

void connect_socket(const Words& words) {
  const Args args(words, Syntax{{}, {}, 1, 1});
  const Fd service = connected(args.positional()[0]);
  const std::string request = read_stdin(64 << 20);
  write_all(service.get(), request.data(), request.size(), "the service");
  shutdown(service.get(), SHUT_WR);
  char buffer[65536];
  while (true) {
    // The host's end of stdout is watched too: once it is gone the service has to hear of it now,
    // not with its next word.
    pollfd entries[2] = {{service.get(), POLLIN, 0}, {STDOUT_FILENO, 0, 0}};
    if (::poll(entries, 2, -1) < 0 && errno != EINTR) throw system_failure("no_poll", "cannot wait");
    if (entries[1].revents & (POLLERR | POLLHUP | POLLNVAL)) return;
    if (!(entries[0].revents & (POLLIN | POLLHUP | POLLERR))) continue;
    const ssize_t got = read(service.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_failure("read_failed", "the service broke off");
    if (got == 0) return;
    write_all(STDOUT_FILENO, buffer, static_cast<size_t>(got), "stdout");
  }
}

}  // namespace farm::helper
