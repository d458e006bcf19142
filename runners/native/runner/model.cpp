#include "model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/backend/interface.h>

#include "../common/failure.h"
#include "log.h"

namespace farm::runner {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::extension::module::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Program;

constexpr const char* kForward = "forward";
constexpr const char* kPrefill = "prefill";
constexpr const char* kDecode = "decode";

Failure failure_of(Error error, const std::string& what) {
  const std::string said = recent_errors();
  if (said.find("external_data_map is null") != std::string::npos) {
    return Failure("missing_data",
                   "the program keeps its weights in a file of its own: give its .ptd with --data")
        .with("where", "data");
  }
  const bool operators = error == Error::OperatorMissing;
  const bool backend = said.find("is not registered") != std::string::npos ||
                       said.find("is not available") != std::string::npos;
  const char* code = operators ? "missing_operator" : backend ? "missing_backend" : what.c_str();
  return Failure(code, explain(static_cast<int>(error)))
      .with("where", "model")
      .with("executorch_error", static_cast<int>(error));
}

Failure unsupported(const std::string& why) {
  return Failure("unsupported_model", "the model can't be run as a language model: " + why)
      .with("where", "model");
}

// A user's own ExecuTorch may be older than the argument that lets methods share memory.
template <class M, class... Places>
std::unique_ptr<M> make_module(bool shared,
                               std::unique_ptr<executorch::runtime::EventTracer> tracer,
                               const Places&... places) {
  if constexpr (std::is_constructible_v<M, const Places&..., decltype(tracer), std::nullptr_t,
                                        std::nullptr_t, bool>) {
    return std::make_unique<M>(places..., std::move(tracer), nullptr, nullptr, shared);
  } else {
    if (shared) throw unsupported("this ExecuTorch can't give two methods one cache");
    return std::make_unique<M>(places..., std::move(tracer));
  }
}

json::Value constant(const EValue& value) {
  if (value.isInt()) return json::Value(static_cast<long long>(value.toInt()));
  if (value.isBool()) return json::Value(value.toBool());
  if (value.isDouble()) return json::Value(value.toDouble());
  return json::Value();
}

}  // namespace

Model::Model(const std::string& path, const std::vector<std::string>& data_paths, bool map_file,
             std::unique_ptr<executorch::runtime::EventTracer> tracer) {
  const auto mode = map_file ? Module::LoadMode::Mmap : Module::LoadMode::File;
  const auto open = [&](std::unique_ptr<executorch::runtime::EventTracer> traced, bool shared) {
    module_ = data_paths.empty() ? make_module<Module>(shared, std::move(traced), path, mode)
                                 : make_module<Module>(shared, std::move(traced), path, data_paths, mode);
    const Error error = module_->load(Program::Verification::InternalConsistency);
    if (error != Error::Ok) throw failure_of(error, "load_failed");
  };
  open(nullptr, false);
  const auto names = module_->method_names();
  if (!names.ok()) throw failure_of(names.error(), "load_failed");
  const bool two = !names->count(kForward);
  // Two methods can only have one cache when all memory of theirs is one. A single one's cache lies
  // among its other values, where the methods that give constants would write.
  if (two || tracer != nullptr) open(std::move(tracer), two);
  read_methods();
  for (const std::string& name : {many_.name, one_.name}) {
    const Error error = module_->load_method(name);
    if (error != Error::Ok) throw failure_of(error, "load_failed");
  }
  read_metadata();
}

Model::~Model() = default;

void Model::read_methods() {
  const auto names = module_->method_names();
  if (!names.ok()) throw failure_of(names.error(), "load_failed");
  if (names->count(kForward)) {
    many_ = one_ = read_method(kForward);
  } else if (names->count(kPrefill) && names->count(kDecode)) {
    many_ = read_method(kPrefill);
    one_ = read_method(kDecode);
    if (many_.vocab != one_.vocab) {
      throw unsupported("`prefill` gives " + std::to_string(many_.vocab) + " logits and `decode` " +
                        std::to_string(one_.vocab));
    }
    check_shared_cache();
  } else {
    std::vector<std::string> sorted(names->begin(), names->end());
    std::sort(sorted.begin(), sorted.end());
    std::string found;
    for (const std::string& name : sorted) found += (found.empty() ? "" : ", ") + name;
    throw unsupported("it has neither a method `forward` nor `prefill` and `decode`, but " +
                      (found.empty() ? "none" : found));
  }
  max_seq_ = many_.max_seq;
  vocab_ = many_.vocab;
}

// Methods share what a program keeps where it was planned into a buffer of its own, the second.
void Model::check_shared_cache() {
  int64_t sizes[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    const auto meta = module_->method_meta(i == 0 ? many_.name : one_.name);
    if (!meta.ok()) throw failure_of(meta.error(), "load_failed");
    if (meta->num_memory_planned_buffers() < 2) continue;
    const auto size = meta->memory_planned_buffer_size(1);
    if (size.ok()) sizes[i] = *size;
  }
  if (sizes[0] == 0 || sizes[0] != sizes[1]) {
    throw unsupported("`prefill` and `decode` have no cache in common; export them with "
                      "MemoryPlanningPass(share_mutable_buffers=True)");
  }
}

Model::Method Model::read_method(const std::string& name) {
  const auto meta = module_->method_meta(name);
  if (!meta.ok()) throw failure_of(meta.error(), "load_failed");
  for (size_t i = 0; i < meta->num_backends(); ++i) {
    const auto backend = meta->get_backend_name(i);
    if (!backend.ok()) continue;
    if (std::find(backends_.begin(), backends_.end(), *backend) == backends_.end()) {
      backends_.emplace_back(*backend);
    }
  }
  const std::string quoted = "`" + name + "`";
  if (meta->num_inputs() != 2) {
    throw unsupported(quoted + " takes " + std::to_string(meta->num_inputs()) +
                      " inputs; tokens and position are expected (an export with KV cache)");
  }
  const auto tokens = meta->input_tensor_meta(0);
  const auto position = meta->input_tensor_meta(1);
  if (!tokens.ok() || tokens->sizes().size() != 2 || tokens->sizes()[0] != 1 ||
      tokens->scalar_type() != ScalarType::Long) {
    throw unsupported("the first input of " + quoted + " is no int64 [1, S]");
  }
  Method method;
  method.name = name;
  method.max_seq = tokens->sizes()[1];
  const bool listed = position.ok() && position->sizes().size() == 1 &&
                      position->scalar_type() == ScalarType::Long;
  if (!listed || (position->sizes()[0] != 1 && position->sizes()[0] != method.max_seq)) {
    throw unsupported("the second input of " + quoted + " is no int64 [1] or [S]");
  }
  method.every_position = position->sizes()[0] != 1;
  const auto logits = meta->output_tensor_meta(0);
  if (meta->num_outputs() < 1 || !logits.ok() || logits->sizes().empty()) {
    throw unsupported(quoted + " returns no tensor");
  }
  method.vocab = logits->sizes()[logits->sizes().size() - 1];
  if (method.max_seq < 1 || method.vocab < 1) throw unsupported("a shape of its is empty");
  return method;
}

bool Model::is_method(const std::string& name) const {
  return name == many_.name || name == one_.name;
}

void Model::read_metadata() {
  const auto names = module_->method_names();
  if (!names.ok()) return;
  std::vector<std::string> sorted(names->begin(), names->end());
  std::sort(sorted.begin(), sorted.end());
  for (const std::string& name : sorted) {
    const auto meta = module_->method_meta(name);
    if (is_method(name) || !meta.ok() || meta->num_inputs() > 0) continue;
    const auto values = module_->execute(name);
    if (values.ok() && values->size() == 1) {
      metadata_.set(name, constant((*values)[0]));
    } else if (values.ok()) {
      json::Value list = json::Value::array();
      for (const EValue& value : *values) list.push(constant(value));
      metadata_.set(name, list);
    }
  }
  forget_errors();
  const auto number = [&](const char* name, int64_t otherwise) {
    const json::Value* found = metadata_.find(name);
    return found && found->is(json::Value::Kind::Int) && found->as_int() > 0 ? found->as_int()
                                                                             : otherwise;
  };
  const json::Value* cached = metadata_.find("use_kv_cache");
  if (cached && cached->as_int() == 0 && !cached->as_bool()) {
    throw unsupported("it was exported without a KV cache");
  }
  const json::Value* dynamic = metadata_.find("enable_dynamic_shape");
  fixed_length_ = dynamic && dynamic->as_int() == 0 && !dynamic->as_bool();
  // ExecuTorch's upper bound of a dynamic length is one short of max_seq_len.
  max_seq_ = std::min(max_seq_, number("get_max_seq_len", max_seq_));
  max_context_ = number("get_max_context_len", number("get_max_seq_len", max_seq_));
}

const float* Model::feed(const int64_t* tokens, int64_t count, int64_t position) {
  const float* logits = nullptr;
  const bool two = many_.name != one_.name;
  for (int64_t done = 0; done < count;) {
    int64_t part = std::min(count - done, max_seq_);
    // What a method of a fixed length leaves over goes token by token where another one takes it.
    if (two && fixed_length_ && part < max_seq_) part = 1;
    if (!two && fixed_length_ && part < max_seq_) {
      throw Failure("unsupported_model", "the model takes exactly " + std::to_string(max_seq_) +
                                             " tokens a call, so it can't take " +
                                             std::to_string(count))
          .with("where", "model");
    }
    logits = call(part == 1 ? one_ : many_, tokens + done, part, position + done);
    done += part;
  }
  return logits;
}

const float* Model::call(const Method& method, const int64_t* tokens, int64_t count,
                         int64_t position) {
  using executorch::extension::from_blob;
  const auto ids = from_blob(const_cast<int64_t*>(tokens), {1, static_cast<int>(count)},
                             ScalarType::Long);
  positions_.resize(static_cast<size_t>(method.every_position ? count : 1));
  std::iota(positions_.begin(), positions_.end(), position);
  const auto at = from_blob(positions_.data(), {static_cast<int>(positions_.size())},
                            ScalarType::Long);
  const auto result = module_->execute(method.name, {EValue(ids), EValue(at)});
  if (!result.ok()) throw failure_of(result.error(), "run_failed");
  if (result->empty() || !(*result)[0].isTensor()) {
    throw unsupported("`" + method.name + "` returns no tensor");
  }
  const Tensor logits = (*result)[0].toTensor();
  const int64_t rows = logits.numel() / vocab_;
  if (rows < 1 || logits.numel() % vocab_ != 0) throw unsupported("the logits have an odd shape");
  const int64_t last = (rows - 1) * vocab_;
  if (logits.scalar_type() == ScalarType::Float) return logits.const_data_ptr<float>() + last;
  widened_.resize(static_cast<size_t>(vocab_));
  if (logits.scalar_type() == ScalarType::Half) {
    const auto* from = logits.const_data_ptr<executorch::aten::Half>() + last;
    std::copy(from, from + vocab_, widened_.begin());
  } else if (logits.scalar_type() == ScalarType::BFloat16) {
    const auto* from = logits.const_data_ptr<executorch::aten::BFloat16>() + last;
    std::copy(from, from + vocab_, widened_.begin());
  } else {
    throw unsupported("the logits are no floating-point numbers");
  }
  return widened_.data();
}

void Model::check_tokens(const std::vector<int64_t>& tokens, const std::string& where) const {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < vocab_) continue;
    throw Failure("token_out_of_vocab", where + "[" + std::to_string(i) + "] is " +
                                            std::to_string(tokens[i]) + ", but the model knows " +
                                            std::to_string(vocab_) + " tokens")
        .with("where", where);
  }
}

void Model::check_length(int64_t length, const std::string& where) const {
  if (length <= max_context_) return;
  throw Failure("context_exceeded", where + " needs " + std::to_string(length) +
                                        " positions, but the model was exported for " +
                                        std::to_string(max_context_))
      .with("where", where);
}

int64_t argmax(const float* logits, int64_t count) {
  constexpr int64_t kLanes = 16;
  constexpr int64_t kBlock = 256;
  float best = -INFINITY;
  int64_t block = 0;
  // The highest of each block, in lanes that the compiler turns into vectors; then one short search.
  for (int64_t from = 0; from < count; from += kBlock) {
    const int64_t to = std::min(from + kBlock, count);
    float tops[kLanes];
    std::fill(tops, tops + kLanes, -INFINITY);
    int64_t i = from;
    for (; i + kLanes <= to; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        tops[lane] = logits[i + lane] > tops[lane] ? logits[i + lane] : tops[lane];
      }
    }
    for (; i < to; ++i) tops[0] = std::max(tops[0], logits[i]);
    const float top = *std::max_element(tops, tops + kLanes);
    if (top > best) {
      best = top;
      block = from;
    }
  }
  const float* end = logits + std::min(block + kBlock, count);
  const float* found = std::find(logits + block, end, best);
  return found == end ? 0 : found - logits;
}

}  // namespace farm::runner
