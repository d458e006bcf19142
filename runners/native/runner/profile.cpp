#include "profile.h"

#include <fcntl.h>

#include <cstdlib>

#ifdef ET_EVENT_TRACER_ENABLED
#include <executorch/devtools/etdump/etdump_flatcc.h>
#else
#include <executorch/runtime/core/event_tracer.h>
#endif

#include "../common/failure.h"
#include "../common/posix.h"
#include "../common/sha256.h"
#include "output.h"
#include "phases.h"

namespace farm::runner {

using executorch::runtime::EventTracer;

#ifdef ET_EVENT_TRACER_ENABLED

namespace {

using executorch::etdump::ETDumpGen;

struct Traced {
  int64_t start_ns;
  int64_t end_ns;
};

// Feeds depth untraced, then prefill and single tokens; the dump then holds these calls alone.
Traced window(const Measure& m, const std::vector<int64_t>& ids, Model& model, ETDumpGen& dump) {
  int64_t position = m.depth > 0 || m.prefill > 0 ? m.depth : 1;
  int64_t next = ids[0];
  if (position > 0) next = argmax(model.feed(ids.data(), position, 0), model.vocab_size());
  dump.reset();
  const int64_t start = monotonic_ns();
  if (m.prefill > 0) {
    next = argmax(model.feed(ids.data() + position, m.prefill, position), model.vocab_size());
    position += m.prefill;
  }
  for (int64_t i = 0; i < m.decode; ++i) {
    next = argmax(model.feed(&next, 1, position++), model.vocab_size());
  }
  return {start, monotonic_ns()};
}

}  // namespace

std::unique_ptr<EventTracer> make_tracer(const Request& request) {
  if (request.profile.empty()) return nullptr;
  return std::make_unique<ETDumpGen>();
}

void run_profile(const Measure& m, const Request& request, Model& model, EventTracer* tracer,
                 const std::string& folder) {
  auto& dump = *static_cast<ETDumpGen*>(tracer);
  const std::vector<int64_t> ids =
      workload(request, model, std::max<int64_t>(m.depth + m.prefill, 1));
  for (int64_t i = 0; i < m.warmup; ++i) window(m, ids, model, dump);
  for (int64_t rep = 0; rep < m.repetitions; ++rep) {
    const Traced traced = window(m, ids, model, dump);
    const auto data = dump.get_etdump_data();
    if (data.buf == nullptr) throw Failure("internal", "the tracer has nothing to tell");
    const std::unique_ptr<void, void (*)(void*)> owner(data.buf, std::free);
    const std::string name = "profile-" + m.name + "-" + std::to_string(rep) + ".etdp";
    const Fd file = open_file(folder + "/" + name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
    write_all(file.get(), data.buf, data.size, name);
    Sha256 sha;
    sha.update(data.buf, data.size);
    print_line("profile", json::Value::object()
                              .set("name", m.name)
                              .set("rep", rep)
                              .set("file", name)
                              .set("size", static_cast<int64_t>(data.size))
                              .set("sha256", sha.hex())
                              .set("prefill", m.prefill)
                              .set("decode", m.decode)
                              .set("depth", m.depth)
                              .set("start_ns", traced.start_ns)
                              .set("end_ns", traced.end_ns));
  }
}

#else

std::unique_ptr<EventTracer> make_tracer(const Request& request) {
  if (request.profile.empty()) return nullptr;
  throw Failure("no_profiler", "this runner was built without ExecuTorch's event tracer")
      .with("where", "profile");
}

void run_profile(const Measure&, const Request&, Model&, EventTracer*, const std::string&) {}

#endif

}  // namespace farm::runner
