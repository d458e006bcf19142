// What this CPU has that kernels are chosen by.
#pragma once

#include <string>
#include <vector>

namespace farm {

// Names as GCC and Linux have them, in a fixed order. Two CPUs with the same ones run the same code.
std::vector<std::string> cpu_features();

}  // namespace farm
