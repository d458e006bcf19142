// farm-runner: runs one request on one .pte and prints what happened.
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <new>
#include <vector>

#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/core/event_tracer.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/runtime.h>

#include "../common/cpu.h"
#include "../common/number.h"
#include "../common/posix.h"
#include "../kernels/isa.h"
#include "../kernels/pool.h"
#include "cores.h"
#include "counters.h"
#include "log.h"
#include "output.h"
#include "own_code.h"
#include "phases.h"
#include "profile.h"
#include "serve.h"
#include "xnnpack_isa.h"

namespace farm::runner {
namespace {

constexpr size_t kMaxRequestBytes = 64 << 20;

struct Options {
  bool hello = false;
  std::string model;
  std::vector<std::string> data;
  std::string request;
  std::string out;
  std::string serve;
  // How long a client of the service may leave the others waiting, seconds.
  std::string idle = "60";
};

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--hello") {
      options.hello = true;
      continue;
    }
    if (word == "--data" && i + 1 < argc) {
      options.data.emplace_back(argv[++i]);
      continue;
    }
    std::string* target = word == "--model"     ? &options.model
                          : word == "--request" ? &options.request
                          : word == "--out"     ? &options.out
                          : word == "--serve"   ? &options.serve
                          : word == "--idle"    ? &options.idle
                                                : nullptr;
    if (target == nullptr || i + 1 == argc) {
      throw Failure("usage", "usage: farm-runner --model M.pte [--data D.ptd]... --request "
                             "request.json --out DIR [--serve SOCKET [--idle S]], or farm-runner --hello; not " + word);
    }
    *target = argv[++i];
  }
  if (!options.hello && (options.model.empty() || options.request.empty() || options.out.empty())) {
    throw Failure("usage", "--model, --request and --out are needed");
  }
  return options;
}

double idle_s(const std::string& text) {
  double found = 0;
  if (!read_double(text, found) || found < 1 || found > 86400) {
    throw Failure("usage", "--idle needs 1 to 86400 seconds, not " + text);
  }
  return found;
}

// With `asked` only backends that are available: asking XNNPACK initialises it, which a load that is
// timed has to do itself.
void say_hello(const std::vector<std::string>& tuned, bool asked) {
  json::Value backends = json::Value::array();
  for (size_t i = 0; i < executorch::runtime::get_num_registered_backends(); ++i) {
    const auto name = executorch::runtime::get_backend_name(i);
    if (!name.ok()) continue;
    auto* backend = executorch::runtime::get_backend_class(*name);
    if (backend && (!asked || backend->is_available())) backends.push(*name);
  }
  json::Value kernels = json::Value::array();
  for (const auto& kernel : executorch::runtime::get_registered_kernels()) {
    if (std::strncmp(kernel.name_, "llama::", 7) == 0) {
      kernels.push(std::string(kernel.name_) + "=" + attention_origin());
    }
  }
  for (const std::string& name : tuned) kernels.push(name + "=farm");
  json::Value features = json::Value::array();
  for (const std::string& name : cpu_features()) features.push(name);
  print_line("hello", json::Value::object()
                          .set("protocol", kProtocol)
                          .set("version", FARM_NATIVE_VERSION)
                          .set("abi", FARM_NATIVE_ABI)
                          .set("isa", kernels::isa_name(kernels::isa()))
                          .set("features", features)
                          .set("backends", backends)
                          .set("kernels", kernels)
                          .set("profiler", has_profiler())
                          .set("turns", true));
}

std::string read_request(const std::string& path) {
  std::string text;
  if (!read_text(path, kMaxRequestBytes + 1, text)) {
    throw Failure("no_request", "cannot read the request " + path).with("where", "request");
  }
  if (text.size() > kMaxRequestBytes) {
    throw Failure("bad_request", "the request is larger than 64 MiB").with("where", "request");
  }
  return text;
}

int64_t check_file(const std::string& path, const char* where) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
    throw Failure("no_model", "no file " + path).with("where", where);
  }
  return static_cast<int64_t>(info.st_size);
}

// Time of this process on the clock and on all its cores; runs from its start.
struct Stopwatch {
  int64_t wall_ns = -monotonic_ns();
  int64_t cpu_ns = -process_cpu_ns();

  void pause() {
    wall_ns += monotonic_ns();
    cpu_ns += process_cpu_ns();
  }
  void resume() {
    wall_ns -= monotonic_ns();
    cpu_ns -= process_cpu_ns();
  }
};

void size_pool(int threads) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr || !pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads))) {
    throw Failure("no_threads", "the thread pool can't be sized to " + std::to_string(threads))
        .with("where", "threads");
  }
}

json::Value describe(const Model& model, const Placement& placement, const Stopwatch& load,
                     const Counters& counters) {
  return json::Value::object()
      .set("load_ns", load.wall_ns)
      .set("load_cpu_ns", load.cpu_ns)
      .set("threads", placement.threads)
      .set("affinity", placement.pinned.empty() ? json::Value("none")
                                                : json::Value::array_of(placement.pinned))
      .set("vocab_size", model.vocab_size())
      .set("max_context", model.max_context())
      .set("max_seq", model.max_seq())
      .set("backends", json::Value::array_of(model.backends()))
      .set("metadata", model.metadata())
      .set("uncounted", counters.unread().empty() ? json::Value() : json::Value(counters.unread()))
      .set("peak_rss_bytes", peak_rss_bytes());
}

void run(const Options& options, char** argv) {
  const int64_t begun = monotonic_ns();
  const Request request = parse_request(read_request(options.request));
  if (!request.isa.empty() && !kernels::force_isa(request.isa)) {
    throw Failure("bad_request", "isa: this machine or build has no " + request.isa)
        .with("where", "isa");
  }
  if (!request.xnnpack_isa.empty() && !request.measure.empty()) {
    throw Failure("bad_request", "xnnpack_isa: what is timed is what ships")
        .with("where", "xnnpack_isa");
  }
  limit_xnnpack(request.xnnpack_isa, argv);
  int64_t weights = check_file(options.model, "model");
  for (const std::string& path : options.data) weights += check_file(path, "data");
  set_attention_order(static_cast<int>(request.sdpa_order));
  const Placement placement = place(request);
  // Before the threads: it counts what is made after it.
  const Counters counters;
  // From here an app would wait: for threads, for XNNPACK, for what is packed.
  Stopwatch load;
  size_pool(placement.threads);
  const std::vector<std::string> tuned = use_tuned_code(weights);
  load.pause();
  say_hello(tuned, false);
  auto tracer = make_tracer(request);
  executorch::runtime::EventTracer* const traced = tracer.get();
  load.resume();
  Model model(options.model, options.data, request.map_file, std::move(tracer));
  load.pause();
  print_line("loaded", describe(model, placement, load, counters));
  check_request(request, model);
  if (!options.serve.empty()) {
    serve(options.serve, model, idle_s(options.idle), [&] {
      say_hello(tuned, false);
      print_line("loaded", describe(model, placement, load, counters));
    });
  }
  run_logits(request, model, options.out);
  if (request.generate.wanted) run_generate(request.generate, model);
  for (const Measure& measure : request.measure) run_measure(measure, request, model, counters);
  for (const Measure& one : request.profile) run_profile(one, request, model, traced, options.out);
  print_line("done", json::Value::object()
                         .set("peak_rss_bytes", peak_rss_bytes())
                         .set("wall_ns", monotonic_ns() - begun));
}

int start(int argc, char** argv) {
  try {
    const Options options = parse_options(argc, argv);
    take_over_log();
    executorch::runtime::runtime_init();
    if (options.hello) {
      say_hello(use_tuned_code(0), true);
    } else {
      run(options, argv);
    }
    return 0;
  } catch (const Failure& failure) {
    report(failure);
    return failure.code() == "usage" ? 2 : 1;
  } catch (const std::bad_alloc&) {
    report(Failure("out_of_memory", "there is not enough memory"));
    return 1;
  } catch (const std::exception& error) {
    report(Failure("internal", error.what()));
    return 1;
  }
}

}  // namespace
}  // namespace farm::runner

int main(int argc, char** argv) {
  umask(077);
  signal(SIGPIPE, SIG_IGN);
  try {
    return farm::runner::start(argc, argv);
  } catch (const std::exception&) {
    return 1;  // stdout is gone: there is nobody left to tell
  }
}
