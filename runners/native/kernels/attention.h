// Scaled dot-product attention over a KV cache, in fp32. It knows nothing of ExecuTorch: threads
// come in as a function. The result is the same bits for every number of threads, because the
// work is cut by shape alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace farm::kernels {

struct Attention {
  const float* query = nullptr;  // [batch, tokens, heads, width]
  const float* key = nullptr;    // [batch, cache, kv_heads, width]
  const float* value = nullptr;  // [batch, cache, kv_heads, width]
  const float* mask = nullptr;   // [tokens, cache], added to the scores; null for none
  float* out = nullptr;          // [batch, tokens, heads, width]
  int64_t batch = 1;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t width = 0;
  int64_t cache = 0;
  int64_t start = 0;      // position of the first token in the cache
  bool causal = true;     // token t sees keys 0 .. start + t; otherwise all of the cache
  float scale = 1.0F;
  int order = 0;          // 0: keys in order; 1..4: other orders of accumulation, same mathematics
};

// Calls task(context, i) for every i below count, in any order and on any thread.
using Parallel = void (*)(void* task_context, void (*task)(void*, size_t), size_t count);

void attend(const Attention& problem, Parallel parallel);

// The orders that Attention::order may name.
constexpr int kOrders = 5;

}  // namespace farm::kernels
