#include "log.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>

#include <executorch/runtime/core/error.h>
#include <executorch/runtime/platform/platform.h>

#include "output.h"

namespace farm::runner {
namespace {

constexpr size_t kMaxLogBytes = 256 * 1024;
constexpr size_t kMaxMessages = 12;

struct Log {
  std::mutex lock;  // guards both members: kernels log from every thread of the pool
  size_t written = 0;
  std::deque<std::string> errors;
};

Log& log() {
  static Log instance;
  return instance;
}

std::string file_name(const char* path) {
  const std::string text = path ? path : "";
  return text.substr(text.rfind('/') + 1);
}

void emit(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, size_t line,
          const char* message, size_t length) {
  const std::string text(message, length);
  Log& state = log();
  const std::lock_guard<std::mutex> guard(state.lock);
  if (level == kError || level == kFatal) {
    state.errors.push_back(text);
    if (state.errors.size() > kMaxMessages) state.errors.pop_front();
  }
  if (state.written >= kMaxLogBytes) return;
  const int printed = std::fprintf(stderr, "%c %s:%zu] %s\n", static_cast<char>(level),
                                   file_name(file).c_str(), line, text.c_str());
  state.written += printed > 0 ? static_cast<size_t>(printed) : 0;
  if (state.written >= kMaxLogBytes) std::fputs("(the rest of the log is left out)\n", stderr);
}

// The runtime gives up on a broken invariant. That is an answer too: say it, then end.
[[noreturn]] void give_up() {
  report(Failure("runtime_abort", "ExecuTorch gave up: " + recent_errors()));
  std::_Exit(3);
}

const char* meaning(executorch::runtime::Error error) {
  using executorch::runtime::Error;
  switch (error) {
    case Error::OperatorMissing: return "the model needs operators that this runner doesn't have";
    case Error::NotFound: return "the model needs something that neither this runner nor its .ptd has";
    case Error::MemoryAllocationFailed: return "there is not enough memory";
    case Error::OutOfResources: return "there are not enough resources";
    case Error::AccessFailed: return "a file can't be read";
    case Error::InvalidProgram: return "the file is no intact ExecuTorch program";
    case Error::InvalidExternalData: return "the external weights don't fit the program";
    case Error::InvalidArgument: return "an operator refused its arguments";
    case Error::NotSupported: return "the model needs what this runtime doesn't support";
    case Error::DelegateInvalidCompatibility: return "a delegate was made for another version";
    case Error::DelegateMemoryAllocationFailed: return "a delegate found not enough memory";
    default: return "the runtime failed";
  }
}

}  // namespace

void take_over_log() {
  executorch::runtime::PalImpl pal = executorch::runtime::PalImpl::create(emit, __FILE__);
  pal.abort = give_up;
  executorch::runtime::register_pal(pal);
}

std::string recent_errors() {
  Log& state = log();
  const std::lock_guard<std::mutex> guard(state.lock);
  std::string out;
  for (const std::string& message : state.errors) out += (out.empty() ? "" : "; ") + message;
  return out;
}

void forget_errors() {
  Log& state = log();
  const std::lock_guard<std::mutex> guard(state.lock);
  state.errors.clear();
}

std::string explain(int error) {
  const std::string said = recent_errors();
  return std::string(meaning(static_cast<executorch::runtime::Error>(error))) + " (ExecuTorch error " +
         std::to_string(error) + (said.empty() ? "" : ": " + said) + ")";
}

}  // namespace farm::runner
