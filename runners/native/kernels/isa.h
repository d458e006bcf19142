// Which vector code runs: chosen once per process from what the CPU has.
#pragma once

#include <string>

namespace farm::kernels {

// Avx512: with products of bytes (VNNI).
enum class Isa { Portable, Avx2, Avx512, Neon };

// The best this CPU has, or what FARM_ISA or force_isa() asks for when the CPU has it.
Isa isa();
// "portable" (also "scalar"), "avx2", "avx512" or "neon". False when this build or CPU lacks it.
bool force_isa(const std::string& name);
const char* isa_name(Isa isa);

}  // namespace farm::kernels
