// Preloaded into Ray's processes: a socket that would listen on every interface of this host
// listens on the address in FARM_BIND_ADDRESS instead. Ray itself knows only "loopback" and "all".
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace {

using Bind = int (*)(int, const sockaddr*, socklen_t);

// Puts the named address in the place of the wildcard; leaves every other address alone.
bool narrowed(const sockaddr* given, socklen_t size, const in_addr& to, sockaddr_storage* out) {
  if (given == nullptr || size > sizeof(*out)) return false;
  std::memcpy(out, given, size);
  if (given->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
    auto* four = reinterpret_cast<sockaddr_in*>(out);
    if (four->sin_addr.s_addr != htonl(INADDR_ANY)) return false;
    four->sin_addr = to;
    return true;
  }
  if (given->sa_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    auto* six = reinterpret_cast<sockaddr_in6*>(out);
    if (!IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr)) return false;
    six->sin6_addr.s6_addr[10] = six->sin6_addr.s6_addr[11] = 0xff;  // ::ffff:ADDRESS
    std::memcpy(&six->sin6_addr.s6_addr[12], &to, sizeof(to));
    return true;
  }
  return false;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int bind(int socket, const sockaddr* given,
                                                           socklen_t size) noexcept {
  const auto real = reinterpret_cast<Bind>(dlsym(RTLD_NEXT, "bind"));
  const char* wanted = std::getenv("FARM_BIND_ADDRESS");
  if (wanted == nullptr) return real(socket, given, size);
  in_addr address{};
  if (inet_pton(AF_INET, wanted, &address) != 1) {
    errno = EADDRNOTAVAIL;  // rather nothing than everything
    return -1;
  }
  sockaddr_storage other{};
  if (!narrowed(given, size, address, &other)) return real(socket, given, size);
  return real(socket, reinterpret_cast<const sockaddr*>(&other), size);
}
