#include "output.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "../common/posix.h"

namespace farm::runner {

void print_line(const char* type, const json::Value& members) {
  json::Value line = json::Value::object();
  line.set("type", type);
  for (const auto& member : members.members()) line.set(member.first, member.second);
  const std::string text = line.dump() + "\n";
  write_all(STDOUT_FILENO, text.data(), text.size(), "stdout");
}

void report(const Failure& failure) {
  const json::Value* where = failure.detail().find("where");
  const json::Value* number = failure.detail().find("executorch_error");
  print_line("error", json::Value::object()
                          .set("code", failure.code())
                          .set("message", failure.message())
                          .set("where", where ? *where : json::Value())
                          .set("executorch_error", number ? *number : json::Value()));
}

int64_t peak_rss_bytes() {
  std::string text;
  if (!read_text("/proc/self/status", 16384, text)) return 0;
  const size_t at = text.find("VmHWM:");
  return at == std::string::npos ? 0 : std::atoll(text.c_str() + at + std::strlen("VmHWM:")) * 1024;
}

}  // namespace farm::runner
