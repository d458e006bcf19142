// farm-helper: what farm needs on a device, in one static binary without ExecuTorch.
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <map>

#include "../common/posix.h"
#include "args.h"
#include "verbs.h"

namespace farm::helper {
namespace {

using Verb = void (*)(const Words&);

void version(const Words& words);

const std::map<std::string, Verb>& verbs() {
  static const std::map<std::string, Verb> table = {
      {"assemble", assemble}, {"clean", clean}, {"commit", commit},
      {"compact", compact},   {"connect", connect_socket},                {"deployment", deployment},
      {"evict", evict},       {"gc", gc},
      {"hash", hash},         {"have", have},   {"kill", kill_job},       {"lease", lease},
      {"poll", poll},         {"probe", probe}, {"supervise", supervise}, {"telemetry", telemetry},
      {"turns", turns},       {"version", version}};
  return table;
}

void version(const Words& words) {
  Args(words, Syntax{});
  json::Value names = json::Value::array();
  for (const auto& verb : verbs()) names.push(verb.first);
  print(json::Value::object()
            .set("version", FARM_NATIVE_VERSION)
            .set("abi", FARM_NATIVE_ABI)
            .set("protocol", 1)
            .set("verbs", names));
}

int fail(const Failure& failure, int status) {
  json::Value error = json::Value::object();
  error.set("code", failure.code()).set("message", failure.message());
  for (const auto& fact : failure.detail().members()) error.set(fact.first, fact.second);
  print(json::Value::object().set("error", error));
  return status;
}

int run(const Words& words) {
  try {
    if (words.empty()) throw Usage("usage: farm-helper VERB ...; `farm-helper version` lists them");
    const auto verb = verbs().find(words[0]);
    if (verb == verbs().end()) throw Usage("unknown verb " + words[0]);
    verb->second(Words(words.begin() + 1, words.end()));
    return 0;
  } catch (const Usage& usage) {
    return fail(usage, 2);
  } catch (const Failure& failure) {
    return fail(failure, 1);
  } catch (const std::exception& error) {
    return fail(Failure("internal", error.what()), 1);
  }
}

}  // namespace

void print(const json::Value& value) {
  const std::string line = value.dump() + "\n";
  write_all(STDOUT_FILENO, line.data(), line.size(), "stdout");
}

}  // namespace farm::helper

int main(int argc, char** argv) {
  umask(077);
  signal(SIGPIPE, SIG_IGN);
  try {
    return farm::helper::run(farm::helper::Words(argv + 1, argv + argc));
  } catch (const std::exception&) {
    return 1;  // stdout is gone: there is nobody left to tell
  }
}
