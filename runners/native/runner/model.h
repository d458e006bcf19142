// A Llama-style .pte with a KV cache inside: forward(tokens [1,S], position) -> logits, or the same
// as two methods with one cache, `prefill` and `decode`. The position is that of the first token, [1],
// or every token's own, [S].
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../common/json.h"

namespace executorch::extension::module {
class Module;
}
namespace executorch::runtime {
class EventTracer;
}

namespace farm::runner {

class Model {
 public:
  // Loads program and method; every call is traced where a tracer is given. Throws Failure
  // load_failed, missing_operator, missing_backend, missing_data, unsupported_model.
  Model(const std::string& path, const std::vector<std::string>& data_paths, bool map_file,
        std::unique_ptr<executorch::runtime::EventTracer> tracer);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  int64_t vocab_size() const { return vocab_; }
  // Most tokens that fit the cache; most tokens of one call.
  int64_t max_context() const { return max_context_; }
  int64_t max_seq() const { return max_seq_; }
  const std::vector<std::string>& backends() const { return backends_; }
  const json::Value& metadata() const { return metadata_; }

  // Feeds tokens at a position, in calls of at most max_seq() tokens. Returns the last token's
  // logits, valid until the next call. Throws Failure context_exceeded, run_failed.
  const float* feed(const int64_t* tokens, int64_t count, int64_t position);

  // Throws Failure token_out_of_vocab or context_exceeded.
  void check_tokens(const std::vector<int64_t>& tokens, const std::string& where) const;
  void check_length(int64_t length, const std::string& where) const;

 private:
  // A method that takes tokens and position.
  struct Method {
    std::string name;
    int64_t max_seq = 0;
    int64_t vocab = 0;
    bool every_position = false;
  };

  void read_methods();
  void read_metadata();
  void check_shared_cache();
  Method read_method(const std::string& name);
  bool is_method(const std::string& name) const;
  const float* call(const Method& method, const int64_t* tokens, int64_t count, int64_t position);

  std::unique_ptr<executorch::extension::module::Module> module_;
  int64_t vocab_ = 0;
  int64_t max_context_ = 0;
  int64_t max_seq_ = 0;
  bool fixed_length_ = false;
  std::vector<std::string> backends_;
  json::Value metadata_ = json::Value::object();
  Method many_;  // takes most tokens a call
  Method one_;   // takes a single token; the same method where there is only one
  std::vector<int64_t> positions_;
  std::vector<float> widened_;
};

// The index of the highest logit; the first of equals.
int64_t argmax(const float* logits, int64_t count);

}  // namespace farm::runner
