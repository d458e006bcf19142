// Files, folders and clocks of POSIX, with errors as farm::Failure. No iostreams, no locale.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "failure.h"

namespace farm {

// An owned file descriptor.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset(int fd = -1);

 private:
  int fd_;
};

// A Failure that names what was tried, on which path, and the system's reason for errno.
// The code is "storage_full" for ENOSPC and EDQUOT, else `code`.
Failure system_failure(const std::string& code, const std::string& what);

Fd open_file(const std::string& path, int flags, mode_t mode = 0600);
void write_all(int fd, const void* data, size_t size, const std::string& path);

// Reads at most `limit` bytes; returns false when the file can't be opened or read at all.
bool read_text(const std::string& path, size_t limit, std::string& out);

// Writes beside the target, flushes to disk when asked, and renames.
void write_atomic(const std::string& path, const std::string& text, bool sync = false);

void make_folders(const std::string& path);
std::vector<std::string> list_folder(const std::string& path);
bool exists(const std::string& path);

// Removes a file or a whole tree without ever following a symbolic link.
void remove_tree(const std::string& path);

// Holds an exclusive flock on `path` for as long as it lives; waits for it at most `wait_s`.
class FileLock {
 public:
  explicit FileLock(const std::string& path, double wait_s = 10);

  // A child that keeps this open holds the lock too.
  int get() const { return fd_.get(); }

 private:
  Fd fd_;
};

int64_t monotonic_ns();
// What all threads of this process have computed.
int64_t process_cpu_ns();
// Counts on while the device sleeps, and can't be set: what leases and heartbeats are kept in.
int64_t boottime_ns();
std::string boot_id();

}  // namespace farm
