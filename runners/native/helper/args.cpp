#include "args.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "../common/number.h"
#include "../common/posix.h"

namespace farm::helper {

Args::Args(const std::vector<std::string>& words, const Syntax& syntax) {
  size_t i = 0;
  for (; i < words.size() && words[i] != "--"; ++i) {
    const std::string& word = words[i];
    if (word.rfind("--", 0) != 0) {
      positional_.push_back(word);
      continue;
    }
    const std::string name = word.substr(2);
    if (syntax.flags.count(name)) {
      values_.emplace(name, "");
    } else if (!syntax.options.count(name)) {
      throw Usage("unknown option " + word);
    } else if (i + 1 == words.size()) {
      throw Usage(word + " needs a value");
    } else {
      values_.emplace(name, words[++i]);
    }
  }
  if (i < words.size()) command_.assign(words.begin() + static_cast<long>(i) + 1, words.end());
  if (syntax.command == command_.empty()) {
    throw Usage(syntax.command ? "a command is needed after --" : "no command is expected here");
  }
  if (positional_.size() < syntax.min_positional) throw Usage("an argument is missing");
  if (positional_.size() > syntax.max_positional) {
    throw Usage("unexpected argument " + positional_[syntax.max_positional]);
  }
}

std::string Args::text(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) throw Usage("--" + name + " is needed");
  return found->second;
}

std::string Args::text(const std::string& name, const std::string& otherwise) const {
  return has(name) ? text(name) : otherwise;
}

std::vector<std::string> Args::all(const std::string& name) const {
  std::vector<std::string> out;
  const auto range = values_.equal_range(name);
  for (auto it = range.first; it != range.second; ++it) out.push_back(it->second);
  return out;
}

int64_t Args::integer(const std::string& name) const {
  return parse_integer(text(name), "--" + name);
}

int64_t Args::integer(const std::string& name, int64_t otherwise) const {
  return has(name) ? integer(name) : otherwise;
}

double Args::seconds(const std::string& name) const {
  const std::string value = text(name);
  double out = 0;
  if (!read_double(value, out) || out < 0 || out > 1e8) {
    throw Usage("--" + name + " needs a number of seconds, not " + value);
  }
  return out;
}

int64_t parse_integer(const std::string& text, const std::string& what) {
  int64_t out = 0;
  const auto end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, out);
  if (result.ec != std::errc() || result.ptr != end || out < 0) {
    throw Usage(what + " needs a whole number, not " + text);
  }
  return out;
}

std::string read_stdin(size_t limit) {
  std::string text;
  char buffer[16384];
  while (text.size() < limit) {
    const ssize_t got = read(STDIN_FILENO, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_failure("read_failed", "cannot read standard input");
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
  throw Failure("bad_manifest", "standard input has more than " + std::to_string(limit) + " bytes");
}

std::vector<std::string> read_environment() {
  std::vector<std::string> entries;
  const std::string text = read_stdin(1 << 20);
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\0', from), text.size());
    entries.push_back(text.substr(from, end - from));
    from = end + 1;
    const size_t equals = entries.back().find('=');
    if (equals == 0 || equals == std::string::npos) throw Usage("--env needs NAME=VALUE in stdin");
  }
  return entries;
}

}  // namespace farm::helper
