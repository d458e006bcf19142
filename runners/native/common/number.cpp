#include "number.h"

#include <cmath>
#include <cstdlib>

namespace farm {

// libc++ has no from_chars of double before 20. Nothing of ours sets a locale; under one with another
// decimal point strtod would stop early, which is refused rather than read as another number.
bool read_double(const std::string& text, double& out) {
  if (text.empty() || text[0] == '+') return false;
  if (text.find_first_not_of("0123456789+-.eE") != std::string::npos) return false;
  char* end = nullptr;
  out = std::strtod(text.c_str(), &end);
  const bool vanished = out == 0 && text.find_first_of("123456789") < text.find_first_of("eE");
  return end == text.c_str() + text.size() && std::isfinite(out) && !vanished;
}

}  // namespace farm
