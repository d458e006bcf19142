#include "operators.h"

#include <cmath>
#include <cstring>

#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>

#include "../kernels/pool.h"
#include "attention.h"

// Tests build a runner whose attention is wrong on purpose: the canary has to find it.
#ifndef FARM_SCALE_ERROR
#define FARM_SCALE_ERROR 1.0
#endif

namespace farm::kernels {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::KernelRuntimeContext;

int current_order = 0;

void on_pool(void* context, void (*task)(void*, size_t), size_t count) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr || pool->get_thread_count() < 2) {
    for (size_t i = 0; i < count; ++i) task(context, i);
    return;
  }
  const auto call = [&](size_t i) { task(context, i); };
  pool->run(call, count);
}

// Four dimensions, packed in the usual order.
bool packed(const Tensor& t, ScalarType type) {
  if (t.dim() != 4 || t.scalar_type() != type) return false;
  int64_t step = 1;
  for (ssize_t d = t.dim() - 1; d >= 0; --d) {
    if (t.size(d) != 1 && t.strides()[static_cast<size_t>(d)] != step) return false;
    step *= t.size(d);
  }
  return true;
}

#define FARM_REQUIRE(condition, text)         \
  if (!(condition)) {                         \
    ET_LOG(Error, "%s: %s", __func__, text);  \
    context.fail(Error::InvalidArgument);     \
    return out;                               \
  }

// Reads shapes and what else both attentions share. Returns what is wrong, or null.
const char* describe(const Tensor& query, const Tensor& key, const Tensor& value, ScalarType type,
                     int64_t start_pos, const std::optional<Tensor>& mask, bool is_causal,
                     const std::optional<double>& scale, Attention& p) {
  if (!packed(query, type)) return "the query must be packed [B,S,H,D], fp32 or with scales int8";
  if (!packed(key, type)) return "the keys must be packed [B,C,G,D], of the query's type";
  if (!packed(value, type)) return "the values must be packed [B,C,G,D], of the query's type";
  p.batch = query.size(0);
  p.tokens = query.size(1);
  p.heads = query.size(2);
  p.width = query.size(3);
  p.cache = key.size(1);
  p.kv_heads = key.size(2);
  for (ssize_t d = 0; d < 4; ++d) {
    if (key.size(d) != value.size(d)) return "keys and values must have one shape";
  }
  if (key.size(0) != p.batch || key.size(3) != p.width) return "keys don't fit the query";
  if (p.kv_heads <= 0 || p.heads % p.kv_heads != 0) return "heads must share kv heads evenly";
  if (start_pos < 0) return "the position is negative";
  p.start = start_pos;
  p.causal = is_causal;
  const double usual = 1.0 / std::sqrt(static_cast<double>(p.width));
  p.scale = static_cast<float>(FARM_SCALE_ERROR * (scale ? *scale : usual));
  p.order = current_order;
  if (mask && mask->numel() > 0) {
    if (mask->dim() != 2 || mask->scalar_type() != ScalarType::Float ||
        mask->size(0) != p.tokens || mask->size(1) != p.cache) {
      return "the mask must be fp32 [tokens, cache]";
    }
    p.mask = mask->const_data_ptr<float>();
  }
  const bool by_position = is_causal || p.mask == nullptr;
  if (by_position && start_pos + p.tokens > p.cache) return "the position is beyond the cache";
  return nullptr;
}

Tensor& custom_sdpa(KernelRuntimeContext& context, const Tensor& query, const Tensor& key,
                    const Tensor& value, const int64_t start_pos,
                    const std::optional<Tensor>& attn_mask, const double, const bool is_causal,
                    const std::optional<double> scale, Tensor& out) {
  Attention p;
  const char* wrong = describe(query, key, value, ScalarType::Float, start_pos, attn_mask,
                               is_causal, scale, p);
  FARM_REQUIRE(wrong == nullptr, wrong);
  FARM_REQUIRE(executorch::runtime::resize_tensor(out, query.sizes()) == Error::Ok,
               "the output can't take the query's shape");
  p.query = query.const_data_ptr<float>();
  p.key = key.const_data_ptr<float>();
  p.value = value.const_data_ptr<float>();
  p.out = out.mutable_data_ptr<float>();
  attend(p, on_pool);
  return out;
}

// False when scales and zero points aren't one for each row of the tensor.
bool rounded(const Tensor& stored, const std::optional<Tensor>& zeros,
             const std::optional<Tensor>& scales, Rounded& to) {
  if (!zeros || !scales || !packed(*zeros, ScalarType::Char) ||
      !packed(*scales, ScalarType::Float)) {
    return false;
  }
  for (ssize_t d = 0; d < 4; ++d) {
    const auto rows = d == 3 ? 1 : stored.size(d);
    if (zeros->size(d) != rows || scales->size(d) != rows) return false;
  }
  to.stored = stored.const_data_ptr<int8_t>();
  to.zeros = zeros->const_data_ptr<int8_t>();
  to.scales = scales->const_data_ptr<float>();
  return true;
}

Tensor& custom_quantized_sdpa(
    KernelRuntimeContext& context, const Tensor& query, const Tensor& key, const Tensor& value,
    const int64_t start_pos, const std::optional<Tensor>& attn_mask, const double,
    const bool is_causal, const std::optional<double> scale,
    const std::optional<Tensor>& q_zero_points, const std::optional<Tensor>& q_scales,
    const std::optional<Tensor>& k_zero_points, const std::optional<Tensor>& k_scales,
    const std::optional<Tensor>& v_zero_points, const std::optional<Tensor>& v_scales,
    const bool is_seq_at_dim_2, Tensor& out) {
  FARM_REQUIRE(!is_seq_at_dim_2, "only caches [B,C,G,D] are known here, not [B,G,C,D]");
  Attention p;
  const char* wrong = describe(query, key, value, ScalarType::Char, start_pos, attn_mask,
                               is_causal, scale, p);
  FARM_REQUIRE(wrong == nullptr, wrong);
  FARM_REQUIRE(rounded(query, q_zero_points, q_scales, p.rounded_query) &&
                   rounded(key, k_zero_points, k_scales, p.rounded_key) &&
                   rounded(value, v_zero_points, v_scales, p.rounded_value),
               "every row needs one fp32 scale and one int8 zero point, packed [B,S,H,1]");
  FARM_REQUIRE(out.scalar_type() == ScalarType::Float &&
                   executorch::runtime::resize_tensor(out, query.sizes()) == Error::Ok,
               "the output must be fp32 and take the query's shape");
  p.out = out.mutable_data_ptr<float>();
  attend(p, on_pool);
  return out;
}

Tensor& update_cache(KernelRuntimeContext& context, const Tensor& value, Tensor& cache,
                     const int64_t start_pos, Tensor& out) {
  FARM_REQUIRE(packed(value, cache.scalar_type()), "the value must be packed, of the cache's type");
  FARM_REQUIRE(packed(cache, cache.scalar_type()), "the cache must be packed [B,C,G,D]");
  for (const ssize_t d : {0, 2, 3}) {
    FARM_REQUIRE(value.size(d) == cache.size(d), "value and cache differ in batch, heads or width");
  }
  FARM_REQUIRE(start_pos >= 0 && start_pos + value.size(1) <= cache.size(1),
               "the position is beyond the cache");
  const size_t token = static_cast<size_t>(cache.size(2) * cache.size(3)) *
                       static_cast<size_t>(cache.element_size());
  const size_t from_step = token * static_cast<size_t>(value.size(1));
  const size_t to_step = token * static_cast<size_t>(cache.size(1));
  const auto* from = static_cast<const char*>(value.const_data_ptr());
  auto* to = static_cast<char*>(cache.mutable_data_ptr()) + token * static_cast<size_t>(start_pos);
  for (ssize_t b = 0; b < value.size(0); ++b, from += from_step, to += to_step) {
    std::memcpy(to, from, from_step);
  }
  return out;
}

// Caches that are rings: each token goes to the place that the indices [B,S] name.
Tensor& update_cache_with_indices(KernelRuntimeContext& context, const Tensor& value, Tensor& cache,
                                  const int64_t, const Tensor& indices, Tensor& out) {
  FARM_REQUIRE(packed(value, cache.scalar_type()), "the value must be packed, of the cache's type");
  FARM_REQUIRE(packed(cache, cache.scalar_type()), "the cache must be packed [B,C,G,D]");
  for (const ssize_t d : {0, 2, 3}) {
    FARM_REQUIRE(value.size(d) == cache.size(d), "value and cache differ in batch, heads or width");
  }
  FARM_REQUIRE(indices.dim() == 2 && indices.scalar_type() == ScalarType::Long &&
                   indices.size(0) == value.size(0) && indices.size(1) == value.size(1),
               "the indices must be int64 [B,S]");
  const size_t token = static_cast<size_t>(cache.size(2) * cache.size(3)) *
                       static_cast<size_t>(cache.element_size());
  const auto* from = static_cast<const char*>(value.const_data_ptr());
  auto* to = static_cast<char*>(cache.mutable_data_ptr());
  for (ssize_t b = 0; b < value.size(0); ++b) {
    const int64_t* places = indices.const_data_ptr<int64_t>() + b * indices.strides()[0];
    for (ssize_t s = 0; s < value.size(1); ++s, from += token) {
      const int64_t place = places[s * indices.strides()[1]];
      FARM_REQUIRE(place >= 0 && place < cache.size(1), "an index is beyond the cache");
      std::memcpy(to + token * static_cast<size_t>(b * cache.size(1) + place), from, token);
    }
  }
  return out;
}

}  // namespace

void set_order(int order) { current_order = order; }

EXECUTORCH_LIBRARY(llama, "custom_sdpa.out", custom_sdpa);
EXECUTORCH_LIBRARY(llama, "custom_quantized_sdpa.out", custom_quantized_sdpa);
EXECUTORCH_LIBRARY(llama, "update_cache.out", update_cache);
EXECUTORCH_LIBRARY(llama, "update_cache_with_indices.out", update_cache_with_indices);

}  // namespace farm::kernels
