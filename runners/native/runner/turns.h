// Windows in turn with those of another process: before each one the runner says what comes next and
// waits until it is let go.
#pragma once

#include <cstdint>
#include <string>

namespace farm::runner {

class Turns {
 public:
  // Not `wanted`: nothing is printed and nobody is waited for.
  explicit Turns(bool wanted) : wanted_(wanted) {}

  // Prints a `turn` line and reads one line of stdin. Throws Failure no_turn at its end.
  void wait(const std::string& metric, int64_t rep, bool warmup) const;

 private:
  bool wanted_;
};

}  // namespace farm::runner
