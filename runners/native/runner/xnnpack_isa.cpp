#include "xnnpack_isa.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "../common/failure.h"

namespace farm::runner {
namespace {

constexpr const char* kVariable = "FARM_XNNPACK_ISA";

#if defined(__x86_64__) && defined(__linux__)

// Why it isn't done; plain text, since nothing is constructed when it is set.
const char* trouble = nullptr;

// XNNPACK asks cpuinfo, which keeps what the CPU has in a struct of bools, `cpuinfo_isa`. Its header
// is not in the SDK. Members on x86-64 by their offset, beside what the CPU says to the compiler.
bool layout_is_known(const bool* isa) {
  __builtin_cpu_init();
  const struct {
    size_t offset;
    bool here;
  } members[] = {
#define FARM_MEMBER(offset, name) {offset, __builtin_cpu_supports(name) != 0}
      FARM_MEMBER(16, "sse3"),     FARM_MEMBER(17, "ssse3"),    FARM_MEMBER(18, "sse4.1"),
      FARM_MEMBER(19, "sse4.2"),   FARM_MEMBER(22, "avx"),      FARM_MEMBER(24, "fma"),
      FARM_MEMBER(28, "avx2"),     FARM_MEMBER(29, "avx512f"),  FARM_MEMBER(33, "avx512dq"),
      FARM_MEMBER(34, "avx512bw"), FARM_MEMBER(35, "avx512vl"), FARM_MEMBER(66, "popcnt"),
      FARM_MEMBER(68, "bmi"),      FARM_MEMBER(69, "bmi2"),
#undef FARM_MEMBER
  };
  for (const auto& one : members) {
    if (isa[one.offset] != one.here) return false;
  }
  return true;
}

const char* limit(const char* wanted) {
  const bool avx2 = std::strcmp(wanted, "avx2") == 0, avx = std::strcmp(wanted, "avx") == 0;
  if (!avx2 && !avx && std::strcmp(wanted, "sse") != 0) return "it is avx2, avx or sse";
  const auto initialise = reinterpret_cast<bool (*)()>(dlsym(RTLD_DEFAULT, "cpuinfo_initialize"));
  auto* isa = static_cast<bool*>(dlsym(RTLD_DEFAULT, "cpuinfo_isa"));
  if (initialise == nullptr || isa == nullptr || !initialise()) return "this build hides cpuinfo";
  if (!layout_is_known(isa)) return "this build's cpuinfo is laid out in another way";
  for (size_t i = 29; i <= 55; ++i) isa[i] = false;  // avx512f to avx_ne_convert
  isa[23] = isa[75] = false;                         // avxvnni, gfni
  if (avx2) return nullptr;
  isa[24] = isa[25] = isa[28] = false;  // fma3, fma4, avx2
  if (avx) return nullptr;
  isa[22] = isa[26] = isa[27] = false;  // avx, xop, f16c
  return nullptr;
}

void early(int, char**, char** environment) {
  const size_t length = std::strlen(kVariable);
  for (; *environment != nullptr; ++environment) {
    if (std::strncmp(*environment, kVariable, length) == 0 && (*environment)[length] == '=') {
      trouble = limit(*environment + length + 1);
    }
  }
}

// Before the constructors of any library.
__attribute__((section(".preinit_array"), used)) void (*const hook)(int, char**, char**) = early;

#else

const char* trouble = "only x86-64 has other code";

#endif

[[noreturn]] void refuse(const std::string& why) {
  throw Failure("bad_request", "xnnpack_isa: " + why).with("where", "xnnpack_isa");
}

}  // namespace

void limit_xnnpack(const std::string& isa, char** argv) {
  const char* limited = std::getenv(kVariable);
  if (isa.empty()) {
    // Somebody's variable would choose the code of a run that says nothing of it.
    if (limited != nullptr) refuse("FARM_XNNPACK_ISA is set, and nobody asked for other code");
    return;
  }
  if (limited != nullptr && isa == limited) {
    if (trouble != nullptr) refuse(trouble);
    return;
  }
  setenv(kVariable, isa.c_str(), 1);
  execv("/proc/self/exe", argv);
  refuse("this program can't be started anew");
}

}  // namespace farm::runner
