// How attention is cut into units, and what one unit computes. Units depend on shapes only.
#pragma once

#include <algorithm>
#include <vector>

#include "attention.h"

namespace farm::kernels {

constexpr int64_t kBlockKeys = 64;   // keys whose scores are held at a time
constexpr int64_t kSplitKeys = 256;  // keys per unit when there are few queries

struct Cut {
  int64_t group;        // query heads that share one kv head
  int64_t block_tokens;  // tokens per unit
  int64_t token_blocks;
  int64_t splits;       // units along the keys
  int64_t split_keys;
  int64_t keys;         // keys that any token sees

  int64_t units(const Attention& p) const { return p.batch * p.kv_heads * token_blocks * splits; }
  int64_t rows() const { return group * block_tokens; }
  // What a unit needs to work in: its queries, one block of scores and, where the cache is int8, one
  // block of keys and values.
  int64_t scratch_floats(const Attention& p) const {
    const int64_t widened = p.key ? 0 : 2 * kBlockKeys * p.width;
    return rows() * (p.width + kBlockKeys) + widened;
  }
};

inline Cut cut(const Attention& p) {
  Cut c{};
  c.group = p.heads / p.kv_heads;
  c.keys = p.visible();
  // About 48 rows of queries fit the first-level cache beside one block of keys.
  c.block_tokens = std::clamp<int64_t>(48 / c.group, 1, std::max<int64_t>(p.tokens, 1));
  c.token_blocks = (p.tokens + c.block_tokens - 1) / c.block_tokens;
  c.split_keys = p.tokens <= 4 ? kSplitKeys : std::max<int64_t>(c.keys, 1);
  c.splits = std::max<int64_t>((c.keys + c.split_keys - 1) / c.split_keys, 1);
  return c;
}

// What a unit leaves when the keys are split: per row the maximum, the sum and the weighted values.
struct Partial {
  float* top;
  float* sum;
  float* values;  // [rows, width]
};

// The order in which a unit visits its `count` blocks of keys; a permutation for every `order`.
inline int64_t visit(int64_t i, int64_t count, int order) {
  switch (order) {
    case 1: return count - 1 - i;
    case 2: return (i + count / 2) % count;
    case 3: return (2 * count - 1 - i - count / 3) % count;
    case 4: return i < (count + 1) / 2 ? 2 * i : 2 * (i - (count + 1) / 2) + 1;
    default: return i;
  }
}

// Small blocks under a perturbation, so that even short contexts have some to reorder.
inline int64_t block_keys(int order) {
  constexpr int64_t kSizes[kOrders] = {kBlockKeys, 8, 8, 12, 16};
  return kSizes[order];
}

}  // namespace farm::kernels
