// Numbers out of text.
#pragma once

#include <string>

namespace farm {

// The double nearest to a decimal number, all of the text. False when it isn't one, or when it lies
// outside the range of doubles; a number that is too small to be told from 0 does.
bool read_double(const std::string& text, double& out);

}  // namespace farm
