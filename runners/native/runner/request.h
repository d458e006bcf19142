// request.json, protocol 1: read once, checked in full, then only this struct.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace farm::runner {

constexpr int kProtocol = 1;

struct Affinity {
  bool automatic = true;
  std::vector<int> cores;  // empty and not automatic: no pinning
};

// One pass of teacher-forced logits: the last token's logits after every chunk.
struct LogitsPass {
  std::string name;
  std::vector<int64_t> chunks;
};

struct Generate {
  bool wanted = false;
  std::vector<int64_t> prompt;
  int64_t max_new_tokens = 0;
  std::vector<int64_t> stop;
  bool stream = false;  // a line for each token when it is chosen
};

struct Measure {
  std::string name;
  int64_t prefill = 0;
  int64_t decode = 0;
  int64_t depth = 0;
  int64_t repetitions = 1;
  int64_t warmup = 0;
  int64_t window_ms = 0;
};

struct Request {
  int64_t threads = 0;  // 0: as many as there are performance cores
  Affinity affinity;
  bool map_file = true;
  std::string isa;  // empty: the best
  std::string xnnpack_isa;  // the same of XNNPACK's code
  int64_t sdpa_order = 0;
  std::vector<int64_t> tokens;
  std::vector<LogitsPass> logits;
  Generate generate;
  std::vector<Measure> measure;
  bool turns = false;  // whether each window of `measure` waits for its turn
  std::vector<Measure> profile;
};

// Throws Failure: bad_json, bad_request or unsupported_protocol, naming the member.
Request parse_request(const std::string& text);

}  // namespace farm::runner
