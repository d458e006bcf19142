#include "turns.h"

#include <unistd.h>

#include <cerrno>

#include "output.h"

namespace farm::runner {

void Turns::wait(const std::string& metric, int64_t rep, bool warmup) const {
  if (!wanted_) return;
  print_line("turn",
             json::Value::object().set("metric", metric).set("rep", rep).set("warmup", warmup));
  for (char byte = 0; byte != '\n';) {
    const ssize_t got = read(STDIN_FILENO, &byte, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got != 1) throw Failure("no_turn", "whoever gives out the turns is gone");
  }
}

}  // namespace farm::runner
