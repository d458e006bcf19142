// Scaled dot-product attention over a KV cache, in fp32; query and cache may be stored as int8. It
// knows nothing of ExecuTorch: threads come in as a function. The result is the same bits for every
// number of threads, because the work is cut by shape alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace farm::kernels {

// int8 rows of `width` with a scale and a zero point each: (stored - zero) * scale is meant.
struct Rounded {
  const int8_t* stored = nullptr;
  const int8_t* zeros = nullptr;
  const float* scales = nullptr;
};

struct Attention {
  const float* query = nullptr;  // [batch, tokens, heads, width]
  const float* key = nullptr;    // [batch, cache, kv_heads, width]
  const float* value = nullptr;  // [batch, cache, kv_heads, width]
  Rounded rounded_query;         // of the same shapes, where the pointers above are null
  Rounded rounded_key;
  Rounded rounded_value;
  const float* mask = nullptr;   // [tokens, cache], added to the scores; null for none
  float* out = nullptr;          // [batch, tokens, heads, width]
  int64_t batch = 1;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t width = 0;
  int64_t cache = 0;
  int64_t start = 0;      // position of the first token in the cache
  bool causal = true;     // token t sees keys up to start + t, else as far as the last token does
  float scale = 1.0F;
  int order = 0;          // 0: keys in order; 1..4: other orders of accumulation, same mathematics

  // Keys that any token sees: what was stored so far; a mask alone decides over the whole cache.
  int64_t visible() const {
    return !causal && mask ? cache : (start + tokens < cache ? start + tokens : cache);
  }
};

// Calls task(context, i) for every i below count, in any order and on any thread.
using Parallel = void (*)(void* task_context, void (*task)(void*, size_t), size_t count);

void attend(const Attention& problem, Parallel parallel);

// The orders that Attention::order may name.
constexpr int kOrders = 5;

}  // namespace farm::kernels
