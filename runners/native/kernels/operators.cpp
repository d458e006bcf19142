#include "operators.h"

#include <cmath>
#include <cstring>

#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>

#include "attention.h"
#include "pool.h"

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

Tensor& custom_sdpa(KernelRuntimeContext& context, const Tensor& query, const Tensor& key,
                    const Tensor& value, const int64_t start_pos,
                    const std::optional<Tensor>& attn_mask, const double, const bool is_causal,
                    const std::optional<double> scale, Tensor& out) {
  FARM_REQUIRE(packed(query, ScalarType::Float), "the query must be packed fp32 [B,S,H,D]");
  FARM_REQUIRE(packed(key, ScalarType::Float), "the keys must be packed fp32 [B,C,G,D]");
  FARM_REQUIRE(packed(value, ScalarType::Float), "the values must be packed fp32 [B,C,G,D]");
  Attention p;
  p.batch = query.size(0);
  p.tokens = query.size(1);
  p.heads = query.size(2);
  p.width = query.size(3);
  p.cache = key.size(1);
  p.kv_heads = key.size(2);
  for (ssize_t d = 0; d < 4; ++d) {
    FARM_REQUIRE(key.size(d) == value.size(d), "keys and values must have one shape");
  }
  FARM_REQUIRE(key.size(0) == p.batch && key.size(3) == p.width, "keys don't fit the query");
  FARM_REQUIRE(p.kv_heads > 0 && p.heads % p.kv_heads == 0, "heads must share kv heads evenly");
  FARM_REQUIRE(start_pos >= 0, "the position is negative");
  FARM_REQUIRE(!is_causal || start_pos + p.tokens <= p.cache, "the position is beyond the cache");
  p.start = start_pos;
  p.causal = is_causal;
  p.scale = static_cast<float>(scale ? *scale : 1.0 / std::sqrt(static_cast<double>(p.width)));
  p.order = current_order;
  if (attn_mask && attn_mask->numel() > 0) {
    FARM_REQUIRE(attn_mask->dim() == 2 && attn_mask->scalar_type() == ScalarType::Float &&
                     attn_mask->size(0) == p.tokens && attn_mask->size(1) == p.cache,
                 "the mask must be fp32 [tokens, cache]");
    p.mask = attn_mask->const_data_ptr<float>();
  }
  FARM_REQUIRE(executorch::runtime::resize_tensor(out, query.sizes()) == Error::Ok,
               "the output can't take the query's shape");
  p.query = query.const_data_ptr<float>();
  p.key = key.const_data_ptr<float>();
  p.value = value.const_data_ptr<float>();
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

}  // namespace

void set_order(int order) { current_order = order; }

EXECUTORCH_LIBRARY(llama, "custom_sdpa.out", custom_sdpa);
EXECUTORCH_LIBRARY(llama, "update_cache.out", update_cache);

}  // namespace farm::kernels
