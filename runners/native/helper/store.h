// The content store on a device: ROOT/objects/<sha256>, stamps that spare re-hashing, and the
// order in which objects were last used. It knows nothing of transports or of jobs.
#pragma once

#include <sys/stat.h>

#include <string>
#include <vector>

#include "../common/posix.h"
#include "args.h"

namespace farm::helper {

struct Store {
  explicit Store(std::string root_path) : root(std::move(root_path)) {}

  std::string object(const std::string& sha) const { return root + "/objects/" + sha; }
  std::string part(const std::string& sha) const { return object(sha) + ".part"; }
  std::string stamp(const std::string& sha) const { return root + "/stamps/" + sha; }
  std::string work() const { return root + "/work"; }
  std::string deployments() const { return root + "/deployments"; }
  std::string lock() const { return root + "/store.lock"; }

  // True when size, mtime, inode and boot id are those of the last full hash.
  bool stamped(const std::string& sha, const struct stat& info) const;
  void write_stamp(const std::string& sha) const;

  // Objects from the least to the most recently used; a counter of uses, so that a wrong wall
  // clock doesn't matter. Objects never used come first.
  std::vector<std::string> by_use() const;
  void mark_used(const std::vector<std::string>& shas) const;

  std::string root;
};

std::string sha_argument(const std::string& text);
std::string hash_file(const std::string& path);

// A single name of letters, digits, `.`, `_`, `-` that doesn't start with a dot.
std::string name_argument(const std::string& text);

// Refuses to go on when --run and --epoch are given and the lease is not theirs.
void check_fence(const std::string& root, const std::string& run, const std::string& epoch);

// Renews a run's lease as long as it lives, in a process of its own: hashing 3 GB of an SD card, or
// writing them out, takes longer than a lease. Nothing happens without a root, a run and a time, or
// once somebody else has the lease.
class Renewal {
 public:
  Renewal(const std::string& root, const std::string& run, const std::string& epoch, double ttl_s);
  ~Renewal();
  Renewal(const Renewal&) = delete;
  Renewal& operator=(const Renewal&) = delete;

 private:
  Fd end_;
  pid_t pid_ = -1;
};

// Of the options --run, --epoch and --ttl-s.
Renewal renewed(const Args& args, const std::string& root);

}  // namespace farm::helper
