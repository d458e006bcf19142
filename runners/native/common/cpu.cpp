#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace farm {

std::vector<std::string> cpu_features() {
  std::vector<std::string> names;
  const auto add = [&](bool there, const char* name) {
    if (there) names.emplace_back(name);
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
#define FARM_FEATURE(name) add(__builtin_cpu_supports(name) != 0, name)
  FARM_FEATURE("sse4.2");
  FARM_FEATURE("avx");
  FARM_FEATURE("avx2");
  FARM_FEATURE("fma");
  FARM_FEATURE("avx512f");
  FARM_FEATURE("avx512bw");
  FARM_FEATURE("avx512dq");
  FARM_FEATURE("avx512vl");
  FARM_FEATURE("avx512vbmi");
  FARM_FEATURE("avx512vnni");
  FARM_FEATURE("gfni");
#undef FARM_FEATURE
  // Not every compiler knows these names.
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
    add(d >> 23 & 1, "avx512fp16");
    add(d >> 25 & 1, "amx_int8");
  }
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) add(a >> 4 & 1, "avx_vnni");
#elif defined(__aarch64__)
  struct Bit {
    int number;
    const char* name;
  };
  const unsigned long one = getauxval(AT_HWCAP);
  const unsigned long two = getauxval(AT_HWCAP2);
  for (const auto& [number, name] :
       {Bit{0, "fp"}, {1, "asimd"}, {3, "aes"}, {6, "sha2"}, {10, "asimdhp"}, {20, "asimddp"},
        {22, "sve"}}) {
    add(one >> number & 1, name);
  }
  for (const auto& [number, name] :
       {Bit{1, "sve2"}, {13, "i8mm"}, {14, "bf16"}, {23, "sme"}}) {
    add(two >> number & 1, name);
  }
#endif
  return names;
}

}  // namespace farm
