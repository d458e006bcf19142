#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace farm::kernels {

bool prefer_large_pages(int64_t bytes) {
#if defined(__GLIBC__)
  constexpr int64_t kMost = int64_t{1} << 30;  // mallopt takes an int
  const int pad = static_cast<int>(bytes < kMost ? bytes : kMost);
  // One growing heap in place of a mapping per buffer: small mappings can't hold a large page.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, pad);
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto before = reinterpret_cast<uintptr_t>(sbrk(0));
  void* volatile grow = std::malloc(1 << 20);  // volatile: or the compiler drops the pair
  std::free(grow);
  const auto after = reinterpret_cast<uintptr_t>(sbrk(0));
  mallopt(M_TOP_PAD, 1 << 25);
  const uintptr_t from = (before + page - 1) / page * page;
  if (after > from) madvise(reinterpret_cast<void*>(from), after - from, MADV_HUGEPAGE);
  return true;
#else
  static_cast<void>(bytes);
  return false;
#endif
}

}  // namespace farm::kernels
