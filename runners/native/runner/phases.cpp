#include "phases.h"

#include <fcntl.h>

#include <algorithm>

#include "../common/posix.h"
#include "../common/sha256.h"
#include "output.h"
#include "turns.h"

namespace farm::runner {
namespace {

constexpr int64_t kProgressEveryNs = 500 * 1000 * 1000;

// Tells how far a phase is, at most twice a second.
class Progress {
 public:
  Progress(std::string phase, int64_t total) : phase_(std::move(phase)), total_(total) {}

  void at(int64_t done) {
    const int64_t now = monotonic_ns();
    if (done < total_ && now - last_ < kProgressEveryNs) return;
    last_ = now;
    print_line("progress",
               json::Value::object().set("phase", phase_).set("done", done).set("total", total_));
  }

 private:
  std::string phase_;
  int64_t total_;
  int64_t last_ = 0;
};

constexpr int64_t kMostPasses = 1000;
// How often the windows of a measurement are sized again.
constexpr int64_t kMostResized = 3;

struct Window {
  int64_t start_ns = 0;
  int64_t first_token_ns = 0;  // when the first token after a prefill was chosen
  int64_t end_ns = 0;
  int64_t cpu_ns = 0;  // of all threads, in the window
  int64_t instructions = -1;  // of all threads; -1: not counted
  std::vector<int64_t> token_ns;
  int64_t from = 0;          // the token that a decode without a prefill begins with
  std::vector<int64_t> ids;  // chosen in the window, pass after pass
};

// Tokens that a pass chooses.
int64_t choices(const Measure& m) { return m.decode + (m.prefill > 0 ? 1 : 0); }

// Place in `ids` of the first choice that another pass made otherwise; null where all agree.
json::Value odd_choice(const std::vector<int64_t>& ids, int64_t each) {
  for (size_t i = static_cast<size_t>(each); i < ids.size(); ++i) {
    if (ids[i] != ids[i % static_cast<size_t>(each)]) return json::Value(static_cast<long long>(i));
  }
  return json::Value();
}

// One window of `passes` passes. `ids` holds depth and prefill.
void run_window(const Measure& m, const std::vector<int64_t>& ids, int64_t passes, Model& model,
                const Counters& counters, Window& window) {
  const int64_t begin = m.depth > 0 || m.prefill > 0 ? m.depth : 1;
  int64_t first = ids[0];
  if (begin > 0) first = argmax(model.feed(ids.data(), begin, 0), model.vocab_size());
  window.from = first;
  window.token_ns.resize(static_cast<size_t>(passes * m.decode));
  window.ids.resize(static_cast<size_t>(passes * choices(m)));
  size_t chosen = 0;
  const int64_t work = counters.instructions();
  const int64_t cpu = process_cpu_ns();
  window.start_ns = monotonic_ns();
  window.first_token_ns = window.start_ns;
  int64_t before = window.start_ns;
  for (int64_t pass = 0; pass < passes; ++pass) {
    int64_t position = begin;
    int64_t next = first;
    if (m.prefill > 0) {
      next = argmax(model.feed(ids.data() + position, m.prefill, position), model.vocab_size());
      window.ids[chosen++] = next;
      position += m.prefill;
      before = monotonic_ns();
      if (pass == 0) window.first_token_ns = before;
    }
    for (int64_t i = 0; i < m.decode; ++i, ++position) {
      next = argmax(model.feed(&next, 1, position), model.vocab_size());
      window.ids[chosen++] = next;
      const int64_t now = monotonic_ns();
      window.token_ns[static_cast<size_t>(pass * m.decode + i)] = now - before;
      before = now;
    }
  }
  window.end_ns = before;
  window.cpu_ns = process_cpu_ns() - cpu;
  const int64_t worked = counters.instructions();
  window.instructions = work < 0 || worked < 0 ? -1 : worked - work;
}

// How many passes a window needs to last what was asked for, from one of `passes` passes: in less, a
// slice of the scheduler weighs too much. A request is answered once: where a window both prefills
// and decodes it stays one.
int64_t passes_for(const Measure& m, const Window& window, int64_t passes) {
  const int64_t took = std::max<int64_t>((window.end_ns - window.start_ns) / passes, 1);
  const int64_t wanted = m.window_ms * 1000 * 1000;
  if (m.prefill > 0 && m.decode > 0) return 1;
  return std::clamp<int64_t>((wanted + took - 1) / took, 1, kMostPasses);
}

// Whether a window lasted less than nine tenths of what was asked for: what it was sized by was slow.
// The windows after it may be faster still, and a host trusts none below four fifths.
bool too_short(const Measure& m, const Window& window, int64_t passes) {
  const int64_t least = m.window_ms * 1000 * 900;
  return window.end_ns - window.start_ns < least && passes < passes_for(m, window, passes);
}

int64_t positions(const Measure& m) {
  return std::max<int64_t>(m.depth + m.prefill, 1) + m.decode;
}

// A file of DIR that is hashed while it is written.
class HashedFile {
 public:
  HashedFile(const std::string& folder, std::string name)
      : name_(std::move(name)), path_(folder + "/" + name_),
        file_(open_file(path_, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)) {}

  void write(const void* data, size_t bytes) {
    sha_.update(data, bytes);
    write_all(file_.get(), data, bytes, path_);
  }

  const std::string& name() const { return name_; }
  std::string hex() { return sha_.hex(); }

 private:
  std::string name_;
  std::string path_;
  Fd file_;
  Sha256 sha_;
};

}  // namespace

std::vector<int64_t> workload(const Request& request, const Model& model, int64_t count) {
  std::vector<int64_t> ids;
  uint64_t state = 0x9E3779B97F4A7C15ULL;
  for (int64_t i = 0; i < count; ++i) {
    if (!request.tokens.empty()) {
      ids.push_back(request.tokens[static_cast<size_t>(i) % request.tokens.size()]);
      continue;
    }
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    ids.push_back(static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(model.vocab_size())));
  }
  return ids;
}

void check_request(const Request& request, const Model& model) {
  model.check_tokens(request.tokens, "tokens");
  model.check_tokens(request.generate.prompt, "generate.prompt");
  for (const LogitsPass& pass : request.logits) {
    int64_t total = 0;
    for (const int64_t chunk : pass.chunks) total += chunk;
    model.check_length(total, "logits." + pass.name);
  }
  if (request.generate.wanted) {
    const auto prompt = static_cast<int64_t>(request.generate.prompt.size());
    model.check_length(prompt + 1, "generate.prompt");
  }
  for (const Measure& m : request.measure) model.check_length(positions(m), "measure." + m.name);
  for (const Measure& m : request.profile) model.check_length(positions(m), "profile." + m.name);
}

void run_logits(const Request& request, Model& model, const std::string& folder) {
  const int64_t vocab = model.vocab_size();
  const size_t bytes = static_cast<size_t>(vocab) * sizeof(float);
  for (const LogitsPass& pass : request.logits) {
    HashedFile file(folder, "logits-" + pass.name + ".f32");
    Progress progress("logits-" + pass.name, static_cast<int64_t>(pass.chunks.size()));
    int64_t position = 0;
    int64_t rows = 0;
    for (const int64_t chunk : pass.chunks) {
      file.write(model.feed(request.tokens.data() + position, chunk, position), bytes);
      position += chunk;
      progress.at(++rows);
    }
    print_line("logits", json::Value::object()
                             .set("name", pass.name)
                             .set("file", file.name())
                             .set("rows", rows)
                             .set("cols", vocab)
                             .set("dtype", "f32")
                             .set("sha256", file.hex()));
  }
}

void run_generate(const Generate& generate, Model& model) {
  std::vector<int64_t> ids;
  std::string stopped_by = "length";
  Progress progress("generate", generate.max_new_tokens);
  const int64_t start = monotonic_ns();
  auto position = static_cast<int64_t>(generate.prompt.size());
  const float* logits = model.feed(generate.prompt.data(), position, 0);
  while (true) {
    const int64_t next = argmax(logits, model.vocab_size());
    if (std::find(generate.stop.begin(), generate.stop.end(), next) != generate.stop.end()) {
      stopped_by = "stop";
      break;
    }
    ids.push_back(next);
    if (generate.stream) {
      print_line("token", json::Value::object().set("id", next).set("t_ns", monotonic_ns()));
    }
    progress.at(static_cast<int64_t>(ids.size()));
    if (static_cast<int64_t>(ids.size()) == generate.max_new_tokens) break;
    if (position == model.max_context()) {
      stopped_by = "context";
      break;
    }
    logits = model.feed(&next, 1, position++);
  }
  print_line("generated", json::Value::object()
                              .set("ids", json::Value::array_of(ids))
                              .set("stopped_by", stopped_by)
                              .set("start_ns", start));
}

void run_measure(const Measure& m, const Request& request, Model& model, const Counters& counters) {
  const Turns turns(request.turns);
  const int64_t count = std::max<int64_t>(m.depth + m.prefill, 1);
  const std::vector<int64_t> ids = workload(request, model, count);
  Window window;
  int64_t passes = 1;
  int64_t warmups = m.warmup;
  for (int64_t i = 0; i < warmups + m.repetitions; ++i) {
    turns.wait(m.name, i < warmups ? i : i - warmups, i < warmups);
    run_window(m, ids, passes, model, counters, window);
    // Windows that count are all alike, so only warm-ups size them; one that comes out too short
    // becomes another warm-up.
    if (m.warmup > 0 && i == warmups && warmups < m.warmup + kMostResized &&
        too_short(m, window, passes)) {
      ++warmups;
    }
    const bool warmup = i < warmups;
    const json::Value ttft =
        m.prefill > 0 ? json::Value(window.first_token_ns - window.start_ns) : json::Value();
    const std::vector<int64_t> first_pass(window.ids.begin(), window.ids.begin() + choices(m));
    print_line("sample", json::Value::object()
                             .set("metric", m.name)
                             .set("rep", warmup ? i : i - warmups)
                             .set("warmup", warmup)
                             .set("tokens", passes * (m.prefill + m.decode))
                             .set("passes", passes)
                             .set("prefill", m.prefill)
                             .set("decode", m.decode)
                             .set("depth", m.depth)
                             .set("start_ns", window.start_ns)
                             .set("end_ns", window.end_ns)
                             .set("cpu_ns", window.cpu_ns)
                             .set("instructions", window.instructions < 0
                                                      ? json::Value()
                                                      : json::Value(window.instructions))
                             .set("ttft_ns", ttft)
                             .set("from", window.from)
                             .set("ids", json::Value::array_of(first_pass))
                             .set("odd", odd_choice(window.ids, choices(m)))
                             .set("token_ns", json::Value::array_of(window.token_ns)));
    print_line("progress", json::Value::object()
                               .set("phase", "measure-" + m.name)
                               .set("done", i + 1)
                               .set("total", warmups + m.repetitions));
    if (i + 1 == warmups) passes = passes_for(m, window, passes);
  }
}

}  // namespace farm::runner
