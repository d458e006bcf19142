// The file of a lease, and the file of those who asked for the device in vain.
#pragma once

#include <cstdint>
#include <string>

#include "../common/json.h"

namespace farm::helper {

struct Lease {
  std::string owner;
  std::string run;
  std::string reason;  // of a hold, for people; empty for a run's lease
  int64_t epoch = 0;
  std::string boot;
  int64_t expires_ns = 0;    // of the uptime of that boot
  bool lasting = false;      // a reboot doesn't end it
  int64_t expires_unix = 0;  // of a lasting one, by the device's wall clock
  double ttl_s = 0;          // as it was asked for last
  bool released = true;
  std::string ended_by;  // whoever ended it in place of its owner
  int64_t ended_unix = 0;

  double left_s() const;
  bool live() const { return left_s() > 0; }
  bool of(const std::string& other_owner, const std::string& other_run) const {
    return owner == other_owner && run == other_run;
  }
  // Lets it end `seconds` from now.
  void extend(double seconds);
};

Lease read_lease(const std::string& root);
void write_lease(const std::string& root, const Lease& lease);

// Both are called under the lock of the lease. Whoever got the device waits no more.
void note_asked(const std::string& root, const std::string& owner, const std::string& run,
                bool in_vain);
json::Value waiting(const std::string& root);

}  // namespace farm::helper
