// The command line of one verb: positional arguments, --name value, --flag, and all after `--`.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "../common/failure.h"

namespace farm::helper {

// Wrong usage; the program exits with 2.
struct Usage : Failure {
  explicit Usage(const std::string& message) : Failure("usage", message) {}
};

struct Syntax {
  std::set<std::string> options;  // take one value each; may be repeated
  std::set<std::string> flags;
  size_t min_positional = 0;
  size_t max_positional = 0;
  bool command = false;  // whether a command after `--` is needed
};

class Args {
 public:
  Args(const std::vector<std::string>& words, const Syntax& syntax);

  const std::vector<std::string>& positional() const { return positional_; }
  const std::vector<std::string>& command() const { return command_; }
  bool has(const std::string& name) const { return values_.count(name) > 0; }
  std::string text(const std::string& name) const;
  std::string text(const std::string& name, const std::string& otherwise) const;
  std::vector<std::string> all(const std::string& name) const;
  int64_t integer(const std::string& name) const;
  int64_t integer(const std::string& name, int64_t otherwise) const;
  double seconds(const std::string& name) const;

 private:
  std::vector<std::string> positional_;
  std::vector<std::string> command_;
  std::multimap<std::string, std::string> values_;
};

int64_t parse_integer(const std::string& text, const std::string& what);

std::string read_stdin(size_t limit);

// `NAME=VALUE` entries of stdin, each ended by a zero byte. Arguments are seen by everybody who
// lists the processes of the device, and values may be secrets.
std::vector<std::string> read_environment();

}  // namespace farm::helper
