// `evict`: puts files out of the page cache, so that the next start reads them from storage.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "../common/posix.h"
#include "args.h"
#include "verbs.h"

namespace farm::helper {
namespace {

// Bytes of an open file that memory holds, in whole pages.
int64_t resident_bytes(int fd, size_t size, const std::string& path) {
  if (size == 0) return 0;
  void* mapped = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) throw system_failure("cannot_open", "cannot map " + path);
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((size + page - 1) / page);
  const int failed = mincore(mapped, size, pages.data());
  munmap(mapped, size);
  if (failed != 0) throw system_failure("cannot_open", "cannot look at the pages of " + path);
  const auto held = std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return p & 1; });
  return static_cast<int64_t>(held) * static_cast<int64_t>(page);
}

}  // namespace

void evict(const Words& words) {
  const Args args(words, Syntax{{}, {}, 1, 10000});
  for (const std::string& path : args.positional()) {
    const Fd file = open_file(path, O_RDONLY);
    struct stat info{};
    if (fstat(file.get(), &info) != 0) throw system_failure("cannot_open", "cannot look at " + path);
    if (!S_ISREG(info.st_mode)) throw Failure("not_a_file", path + " is not a regular file");
    // Pages that wait to be written can't be dropped. A read-only file system has none.
    fdatasync(file.get());
    const int failed = posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    print(json::Value::object()
              .set("path", path)
              .set("size", static_cast<int64_t>(info.st_size))
              .set("advised", failed == 0)
              .set("resident_bytes",
                   resident_bytes(file.get(), static_cast<size_t>(info.st_size), path)));
  }
}

}  // namespace farm::helper
