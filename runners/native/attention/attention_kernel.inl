// One unit of attention, for one vector type. Included inside a namespace that defines Vec.

inline Vec exponential(Vec x) {
  const Vec clamped = max(x, Vec::all(-87.0F));
  const Vec n = round(clamped * Vec::all(1.44269504088896341F));
  // ln 2 in two parts: the first has few enough bits that n times it is exact.
  const Vec high = fma(n, Vec::all(-0.693359375F), clamped);
  const Vec r = fma(n, Vec::all(2.12194440e-4F), high);
  Vec p = Vec::all(1.9875691500e-4F);
  for (const float c : {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F,
                        5.0000001201e-1F}) {
    p = fma(p, r, Vec::all(c));
  }
  p = fma(p, r * r, r + Vec::all(1.0F));
  return zero_below(x, -87.0F, p * power_of_two(n));
}

// Dot products of ROWS queries with KEYS keys: scores[row * stride + key].
template <int ROWS, int KEYS>
inline void dots(const float* query, const float* key, int64_t key_step, int64_t width,
                 float* scores, int64_t stride) {
  Vec sums[ROWS][KEYS];
  for (int r = 0; r < ROWS; ++r) {
    for (int k = 0; k < KEYS; ++k) sums[r][k] = Vec::all(0);
  }
  int64_t d = 0;
  for (; d + Vec::kLanes <= width; d += Vec::kLanes) {
    Vec q[ROWS];
    for (int r = 0; r < ROWS; ++r) q[r] = Vec::load(query + r * width + d);
    for (int k = 0; k < KEYS; ++k) {
      const Vec lane = Vec::load(key + k * key_step + d);
      for (int r = 0; r < ROWS; ++r) sums[r][k] = fma(q[r], lane, sums[r][k]);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    float* out = scores + r * stride;
    if (KEYS == 4) {
      sum4(sums[r], out);
    } else {
      for (int k = 0; k < KEYS; ++k) out[k] = sum(sums[r][k]);
    }
    for (int64_t tail = d; tail < width; ++tail) {
      for (int k = 0; k < KEYS; ++k) out[k] += query[r * width + tail] * key[k * key_step + tail];
    }
  }
}

// Asks for the rows of `keys` keys and their values ahead of use: a decoded token finds its cache
// pushed out by the weights, and the hardware doesn't foresee steps over other heads.
inline void fetch_ahead(const float* key, const float* value, int64_t step, int64_t width,
                        int64_t first, int64_t keys) {
  constexpr int64_t kLine = 16;  // floats
  constexpr int64_t kAhead = 8;  // keys
  for (int64_t k = first; k < std::min(first + 4, keys); ++k) {
    for (int64_t d = 0; d < width; d += kLine) {
      if (k + kAhead < keys) __builtin_prefetch(key + (k + kAhead) * step + d);
      __builtin_prefetch(value + k * step + d);
    }
  }
}

template <int ROWS>
inline void score_rows(const float* query, const float* key, const float* value, int64_t key_step,
                       int64_t width, int64_t keys, float* scores, int64_t stride) {
  int64_t k = 0;
  for (; k + 4 <= keys; k += 4) {
    if (value) fetch_ahead(key, value, key_step, width, k, keys);
    dots<ROWS, 4>(query, key + k * key_step, key_step, width, scores + k, stride);
  }
  for (; k < keys; ++k) {
    dots<ROWS, 1>(query, key + k * key_step, key_step, width, scores + k, stride);
  }
}

// values[row] += weights[row, keys] * value[keys], COLUMNS vectors of the width at a time. A block is
// summed by itself: one long chain of additions would round where the sum of all keys is large.
template <int ROWS, int COLUMNS>
inline void mix(const float* weights, int64_t stride, const float* value, int64_t value_step,
                int64_t keys, float* values, int64_t width) {
  Vec sums[ROWS][COLUMNS];
  for (int r = 0; r < ROWS; ++r) {
    for (int c = 0; c < COLUMNS; ++c) sums[r][c] = Vec::all(0);
  }
  for (int64_t k = 0; k < keys; ++k) {
    Vec w[ROWS];
    for (int r = 0; r < ROWS; ++r) w[r] = Vec::all(weights[r * stride + k]);
    for (int c = 0; c < COLUMNS; ++c) {
      const Vec lane = Vec::load(value + k * value_step + c * Vec::kLanes);
      for (int r = 0; r < ROWS; ++r) sums[r][c] = fma(w[r], lane, sums[r][c]);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int c = 0; c < COLUMNS; ++c) {
      float* to = values + r * width + c * Vec::kLanes;
      (Vec::load(to) + sums[r][c]).store(to);
    }
  }
}

template <int ROWS>
inline void mix_rows(const float* weights, int64_t stride, const float* value, int64_t value_step,
                     int64_t keys, float* values, int64_t width) {
  constexpr int64_t kLanes = Vec::kLanes;
  int64_t d = 0;
  for (; d + 4 * kLanes <= width; d += 4 * kLanes) {
    mix<ROWS, 4>(weights, stride, value + d, value_step, keys, values + d, width);
  }
  for (; d + kLanes <= width; d += kLanes) {
    mix<ROWS, 1>(weights, stride, value + d, value_step, keys, values + d, width);
  }
  for (; d < width; ++d) {
    for (int r = 0; r < ROWS; ++r) {
      float sum = 0;
      for (int64_t k = 0; k < keys; ++k) sum += weights[r * stride + k] * value[k * value_step + d];
      values[r * width + d] += sum;
    }
  }
}

// Calls f<3>, f<2> or f<1> over all rows.
template <class Three, class Two, class One>
inline void by_rows(int64_t rows, Three three, Two two, One one) {
  int64_t r = 0;
  for (; r + 3 <= rows; r += 3) three(r);
  if (rows - r == 2) two(r);
  if (rows - r == 1) one(r);
}

// Turns scores into weights against the running maximum, and rescales what was summed before.
inline void weigh(float* scores, int64_t keys, float& top_so_far, float& sum_so_far, float* values,
                  int64_t width) {
  constexpr int64_t kLanes = Vec::kLanes;
  float highest = -INFINITY;
  int64_t k = 0;
  if (keys >= kLanes) {
    Vec tops = Vec::load(scores);
    for (k = kLanes; k + kLanes <= keys; k += kLanes) tops = max(tops, Vec::load(scores + k));
    highest = top(tops);
  }
  for (; k < keys; ++k) highest = std::fmax(highest, scores[k]);
  const float before = top_so_far;
  top_so_far = std::fmax(before, highest);
  if (top_so_far == -INFINITY) {  // every key so far is masked out
    std::fill(scores, scores + keys, 0.0F);
    return;
  }
  if (before != top_so_far && before != -INFINITY) {
    const float factor = std::exp(before - top_so_far);
    sum_so_far *= factor;
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) {
      (Vec::load(values + d) * Vec::all(factor)).store(values + d);
    }
    for (; d < width; ++d) values[d] *= factor;
  }
  Vec sums = Vec::all(0);
  float rest = 0;
  for (k = 0; k + kLanes <= keys; k += kLanes) {
    const Vec weight = exponential(Vec::load(scores + k) - Vec::all(top_so_far));
    weight.store(scores + k);
    sums = sums + weight;
  }
  for (; k < keys; ++k) {
    scores[k] = std::exp(scores[k] - top_so_far);
    rest += scores[k];
  }
  sum_so_far += sum(sums) + rest;
}

struct Unit {
  const Attention& p;
  const Cut& c;
  int64_t batch;
  int64_t kv_head;
  int64_t first_token;
  int64_t tokens;
  int64_t first_key;
  int64_t last_key;  // one past the last

  int64_t rows() const { return tokens * c.group; }
  int64_t limit(int64_t token) const {
    return p.causal ? std::min(p.start + token + 1, c.keys) : c.keys;
  }
  int64_t query_row(int64_t token, int64_t member) const {
    return (batch * p.tokens + token) * p.heads + kv_head * c.group + member;
  }
  int64_t key_row(int64_t key) const {
    return (batch * p.cache + key) * p.kv_heads + kv_head;
  }
};

// Writes one int8 row as floats, times a factor.
inline void widen(const Rounded& from, int64_t row, int64_t width, float factor, float* to) {
  const int8_t* stored = from.stored + row * width;
  const float zero = from.zeros[row];
  const float scale = from.scales[row] * factor;
  int64_t d = 0;
  for (; d + Vec::kLanes <= width; d += Vec::kLanes) {
    ((Vec::load(stored + d) - Vec::all(zero)) * Vec::all(scale)).store(to + d);
  }
  for (; d < width; ++d) to[d] = (static_cast<float>(stored[d]) - zero) * scale;
}

// `keys` rows of a cache of int8, each `step` rows after the one before, packed one after the other.
inline void widen_block(const Rounded& from, int64_t row, int64_t step, int64_t keys, int64_t width,
                        float* to) {
  constexpr int64_t kAhead = 16;
  for (int64_t k = 0; k < keys; ++k) {
    if (k + kAhead < keys) {
      const int64_t ahead = row + (k + kAhead) * step;
      __builtin_prefetch(from.stored + ahead * width);
      __builtin_prefetch(from.scales + ahead);
      __builtin_prefetch(from.zeros + ahead);
    }
    widen(from, row + k * step, width, 1.0F, to + k * width);
  }
}

// Keys and values of one block, in fp32.
struct Block {
  const float* key;
  const float* value;
  int64_t step;  // floats from one key to the next
};

inline Block block_at(const Unit& u, int64_t key, int64_t keys, float* widened) {
  const int64_t width = u.p.width;
  const int64_t row = u.key_row(key);
  if (u.p.key) return {u.p.key + row * width, u.p.value + row * width, u.p.kv_heads * width};
  float* value = widened + kBlockKeys * width;
  widen_block(u.p.rounded_key, row, u.p.kv_heads, keys, width, widened);
  widen_block(u.p.rounded_value, row, u.p.kv_heads, keys, width, value);
  return {widened, value, width};
}

inline void load_queries(const Unit& u, float* to) {
  const int64_t width = u.p.width;
  for (int64_t r = 0; r < u.rows(); ++r, to += width) {
    const int64_t row = u.query_row(u.first_token + r / u.c.group, r % u.c.group);
    if (!u.p.query) {
      widen(u.p.rounded_query, row, width, u.p.scale, to);
      continue;
    }
    const float* from = u.p.query + row * width;
    for (int64_t d = 0; d < width; ++d) to[d] = from[d] * u.p.scale;
  }
}

// Masks, then weighs the scores of one block; a row may see fewer keys than the block holds.
inline void weigh_block(const Unit& u, int64_t key, int64_t keys, float* scores, int64_t stride,
                        const Partial& out) {
  for (int64_t t = 0; t < u.tokens; ++t) {
    const int64_t token = u.first_token + t;
    const int64_t seen = std::clamp<int64_t>(u.limit(token) - key, 0, keys);
    for (int64_t g = 0; g < u.c.group; ++g) {
      const int64_t r = t * u.c.group + g;
      float* row = scores + r * stride;
      if (u.p.mask) {
        const float* mask = u.p.mask + token * u.p.cache + key;
        for (int64_t k = 0; k < seen; ++k) row[k] += mask[k];
      }
      if (seen > 0) {
        weigh(row, seen, out.top[r], out.sum[r], out.values + r * u.p.width, u.p.width);
      }
      std::fill(row + seen, row + keys, 0.0F);
    }
  }
}

inline void run_unit(const Unit& u, const Partial& out, float* scratch) {
  const int64_t width = u.p.width;
  const int64_t rows = u.rows();
  const int64_t block = block_keys(u.p.order);
  float* query = scratch;
  float* scores = scratch + rows * width;
  float* widened = scores + rows * kBlockKeys;
  load_queries(u, query);
  std::fill(out.top, out.top + rows, -INFINITY);
  std::fill(out.sum, out.sum + rows, 0.0F);
  std::fill(out.values, out.values + rows * width, 0.0F);
  const int64_t last = std::min(u.last_key, u.limit(u.first_token + u.tokens - 1));
  const int64_t blocks = (std::max<int64_t>(last - u.first_key, 0) + block - 1) / block;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t key = u.first_key + visit(i, blocks, u.p.order) * block;
    const int64_t keys = std::min(block, last - key);
    const Block b = block_at(u, key, keys, widened);
    const auto score = [&](auto size, int64_t r) {
      // What was widened a moment ago needs no fetching.
      const float* ahead = r == 0 && u.p.key ? b.value : nullptr;
      score_rows<decltype(size)::value>(query + r * width, b.key, ahead, b.step, width, keys,
                                        scores + r * block, block);
    };
    const auto gather = [&](auto size, int64_t r) {
      mix_rows<decltype(size)::value>(scores + r * block, block, b.value, b.step, keys,
                                      out.values + r * width, width);
    };
    using Three = std::integral_constant<int, 3>;
    using Two = std::integral_constant<int, 2>;
    using One = std::integral_constant<int, 1>;
    by_rows(
        rows, [&](int64_t r) { score(Three(), r); }, [&](int64_t r) { score(Two(), r); },
        [&](int64_t r) { score(One(), r); });
    weigh_block(u, key, keys, scores, block, out);
    by_rows(
        rows, [&](int64_t r) { gather(Three(), r); }, [&](int64_t r) { gather(Two(), r); },
        [&](int64_t r) { gather(One(), r); });
  }
}
