#include "isa.h"

#include <cstdlib>

namespace farm::kernels {
namespace {

bool has(Isa wanted) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (wanted == Isa::Avx2) return avx2;
  if (wanted == Isa::Avx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
  }
#elif defined(__aarch64__)
  if (wanted == Isa::Neon) return true;  // part of the ABI
#endif
  return wanted == Isa::Portable;
}

bool by_name(const std::string& name, Isa& out) {
  for (const Isa candidate : {Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Neon}) {
    if (name == isa_name(candidate)) {
      out = candidate;
      return true;
    }
  }
  out = Isa::Portable;
  return name == "scalar";
}

Isa choose() {
  const char* forced = std::getenv("FARM_ISA");
  Isa wanted = Isa::Portable;
  if (forced && by_name(forced, wanted) && has(wanted)) return wanted;
  for (const Isa candidate : {Isa::Avx512, Isa::Avx2, Isa::Neon}) {
    if (has(candidate)) return candidate;
  }
  return Isa::Portable;
}

Isa& current() {
  static Isa chosen = choose();
  return chosen;
}

}  // namespace

Isa isa() { return current(); }

bool force_isa(const std::string& name) {
  Isa wanted = Isa::Portable;
  if (!by_name(name, wanted) || !has(wanted)) return false;
  current() = wanted;
  return true;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::Avx2: return "avx2";
    case Isa::Avx512: return "avx512";
    case Isa::Neon: return "neon";
    case Isa::Portable: break;
  }
  return "portable";
}

}  // namespace farm::kernels
