// Instructions that this process retires in user space, where its kernel lets an ordinary user count
// them. They know nothing of clocks, heat and neighbours.
#pragma once

#include <cstdint>
#include <string>

#include "../common/posix.h"

namespace farm::runner {

class Counters {
 public:
  // Threads that are made later are counted too: open it before any.
  Counters();

  // Why nothing is counted; empty where it is.
  const std::string& unread() const { return unread_; }

  // Instructions so far; -1 where they can't be read, or where the counter had to be shared and
  // missed some.
  int64_t instructions() const;

 private:
  Fd fd_;
  std::string unread_;
};

}  // namespace farm::runner
