#include "posix.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace farm {
namespace {

int64_t read_clock(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

bool skip_entry(const char* name) { return !std::strcmp(name, ".") || !std::strcmp(name, ".."); }

void remove_at(int parent, const std::string& name) {
  if (unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return;
  const int folder = openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) throw system_failure("remove_failed", "cannot remove " + name);
  fchmod(folder, 0700);
  DIR* stream = fdopendir(folder);
  if (!stream) {
    close(folder);
    throw system_failure("remove_failed", "cannot list " + name);
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(stream)) {
    if (!skip_entry(entry->d_name)) names.emplace_back(entry->d_name);
  }
  try {
    for (const std::string& child : names) remove_at(folder, child);
  } catch (...) {
    closedir(stream);
    throw;
  }
  closedir(stream);
  if (unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
    throw system_failure("remove_failed", "cannot remove the folder " + name);
  }
}

}  // namespace

void Fd::reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

Failure system_failure(const std::string& code, const std::string& what) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT;
  return Failure(full ? "storage_full" : code, what + ": " + std::strerror(error));
}

Fd open_file(const std::string& path, int flags, mode_t mode) {
  Fd fd(open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) throw system_failure("cannot_open", "cannot open " + path);
  return fd;
}

void write_all(int fd, const void* data, size_t size, const std::string& path) {
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = write(fd, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw system_failure("write_failed", "cannot write " + path);
    bytes += written;
    size -= static_cast<size_t>(written);
  }
}

bool read_text(const std::string& path, size_t limit, std::string& out) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return false;
  out.clear();
  char buffer[16384];
  while (out.size() < limit) {
    const ssize_t got = read(fd.get(), buffer, std::min(sizeof buffer, limit - out.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && out.empty()) return false;
    if (got <= 0) break;
    out.append(buffer, static_cast<size_t>(got));
  }
  return true;
}

void write_atomic(const std::string& path, const std::string& text, bool sync) {
  const std::string temporary = path + ".tmp-" + std::to_string(getpid());
  try {
    const Fd fd = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    write_all(fd.get(), text.data(), text.size(), temporary);
    if (sync && fsync(fd.get()) != 0) throw system_failure("write_failed", "cannot sync " + path);
    if (rename(temporary.c_str(), path.c_str()) != 0) {
      throw system_failure("write_failed", "cannot rename to " + path);
    }
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
}

void make_folders(const std::string& path) {
  if (path.empty() || mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return;
  if (errno != ENOENT) throw system_failure("cannot_create", "cannot create " + path);
  make_folders(folder_of(path));
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    throw system_failure("cannot_create", "cannot create " + path);
  }
}

std::vector<std::string> list_folder(const std::string& path) {
  std::vector<std::string> names;
  DIR* stream = opendir(path.c_str());
  if (!stream) return names;
  while (const dirent* entry = readdir(stream)) {
    if (!skip_entry(entry->d_name)) names.emplace_back(entry->d_name);
  }
  closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

bool exists(const std::string& path) {
  struct stat info{};
  return lstat(path.c_str(), &info) == 0;
}

void remove_tree(const std::string& path) { remove_at(AT_FDCWD, path); }

FileLock::FileLock(const std::string& path, double wait_s)
    : fd_(open_file(path, O_RDWR | O_CREAT)) {
  const int64_t deadline = monotonic_ns() + static_cast<int64_t>(wait_s * 1e9);
  while (flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) throw system_failure("lock", "cannot lock " + path);
    if (monotonic_ns() > deadline) {
      throw Failure("lock_busy", "another process keeps " + path + " locked");
    }
    usleep(2000);
  }
}

int64_t monotonic_ns() { return read_clock(CLOCK_MONOTONIC); }
int64_t process_cpu_ns() { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }
int64_t boottime_ns() { return read_clock(CLOCK_BOOTTIME); }

std::string boot_id() {
  std::string text;
  if (!read_text("/proc/sys/kernel/random/boot_id", 64, text)) return "unknown";
  while (!text.empty() && text.back() <= ' ') text.pop_back();
  return text;
}

}  // namespace farm
