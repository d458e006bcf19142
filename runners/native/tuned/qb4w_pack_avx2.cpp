// XNNPACK's order of 4-bit weights: a step takes 16 inputs of a column as 8 bytes, input i in the
// lower half of byte i and input i + 8 in the upper; the columns of a tile lie side by side. They are
// packed eight at a time.
#include "qb4w.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx2")  // and no FMA: XNNPACK rounds products before it adds them
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#include <immintrin.h>

namespace farm::kernels::avx2 {
namespace {

constexpr size_t kColumns = 8;
constexpr size_t kInputs = 32;  // of two steps, 16 bytes of a column
constexpr int kOffsets = 16 * 8;  // what the offsets of a step's weights add up to

// 16 bytes of one column in the lower half, of another in the upper.
inline __m256i load_pair(const uint8_t* lower, const uint8_t* upper) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(lower));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(upper));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

// Both steps of each half: from pairs of neighbours to pairs of inputs i and i + 8.
inline __m256i reorder(__m256i bytes) {
  const __m256i front = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 1, -1, 2, -1, 3, -1, 8, -1, 9, -1, 10, -1, 11, -1));
  const __m256i back = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(4, -1, 5, -1, 6, -1, 7, -1, 12, -1, 13, -1, 14, -1, 15, -1));
  const __m256i a = _mm256_shuffle_epi8(bytes, front);
  const __m256i b = _mm256_slli_epi16(_mm256_shuffle_epi8(bytes, back), 4);
  const __m256i lower =
      _mm256_and_si256(_mm256_or_si256(a, _mm256_slli_epi16(a, 4)), _mm256_set1_epi8(0x0F));
  const __m256i upper = _mm256_and_si256(_mm256_or_si256(b, _mm256_slli_epi16(b, 4)),
                                         _mm256_set1_epi8(static_cast<char>(0xF0)));
  return _mm256_xor_si256(_mm256_or_si256(lower, upper),
                          _mm256_set1_epi8(static_cast<char>(0x88)));
}

// The sum of each step's values in a word of 64 bits.
inline __m256i add_up(__m256i bytes) {
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  const __m256i both = _mm256_add_epi8(_mm256_and_si256(bytes, nibble),
                                       _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
  return _mm256_sad_epu8(both, _mm256_setzero_si256());
}

// Two steps of eight columns: their packed bytes, and the sums of their weights.
struct Steps {
  __m256i bytes[4];  // two for each step
  __m256 sums[2];

  explicit Steps(const uint8_t* const (&columns)[kColumns], size_t at) {
    const auto pair = [&](int a, int b) { return load_pair(columns[a] + at, columns[b] + at); };
    const __m256i pairs[4] = {pair(0, 2), pair(1, 3), pair(4, 6), pair(5, 7)};
    __m256i ordered[4], totals[4];
    for (int i = 0; i < 4; ++i) {
      ordered[i] = reorder(pairs[i]);
      totals[i] = add_up(pairs[i]);
    }
    for (int i = 0; i < 2; ++i) {
      bytes[i] = _mm256_unpacklo_epi64(ordered[2 * i], ordered[2 * i + 1]);
      bytes[2 + i] = _mm256_unpackhi_epi64(ordered[2 * i], ordered[2 * i + 1]);
      totals[i] = _mm256_or_si256(totals[2 * i], _mm256_slli_epi64(totals[2 * i + 1], 32));
    }
    sums[0] = in_order(_mm256_unpacklo_epi64(totals[0], totals[1]));
    sums[1] = in_order(_mm256_unpackhi_epi64(totals[0], totals[1]));
  }

 private:
  static __m256 in_order(__m256i totals) {
    const __m256i eight = _mm256_permute4x64_epi64(totals, 0xD8);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(eight, _mm256_set1_epi32(kOffsets)));
  }
};

// The first `count` columns of one step; all of them if FULL.
template <bool FULL>
inline void store_step(const __m256i* bytes, size_t count, uint8_t* to) {
  if constexpr (FULL) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes[0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to) + 1, bytes[1]);
  } else {
    std::memcpy(to, bytes, 8 * count);
  }
}

// bf16 of a sixteenth: products take weights in the upper half of a byte.
inline __m128i sixteenth(__m256 scales) {
  const __m256i bits =
      _mm256_castps_si256(_mm256_mul_ps(scales, _mm256_set1_ps(0.0625F)));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

// Eight columns from `column` on, of which the tile at `to` holds `width`; `first` is their place in it.
template <bool FULL>
void pack_columns(const Qb4wWeights& from, size_t column, size_t width, size_t first, uint8_t* to) {
  const size_t count = FULL ? kColumns : std::min(kColumns, from.outputs - column);
  const size_t blocks = from.inputs / from.block;
  const uint8_t* values[kColumns];
  const uint16_t* scales[kColumns];
  for (size_t c = 0; c < kColumns; ++c) {
    const size_t known = column + std::min(c, count - 1);
    values[c] = from.values + known * (from.inputs / 2);
    scales[c] = from.scales + known * blocks;
  }
  const __m256 zero_point = _mm256_set1_ps(static_cast<float>(from.zero_point));
  __m256 sums = _mm256_setzero_ps();
  uint8_t* out = to + width * sizeof(float);
  size_t at = 0;
  for (size_t b = 0; b < blocks; ++b) {
    const __m128i stored = _mm_setr_epi16(
        static_cast<short>(scales[0][b]), static_cast<short>(scales[1][b]),
        static_cast<short>(scales[2][b]), static_cast<short>(scales[3][b]),
        static_cast<short>(scales[4][b]), static_cast<short>(scales[5][b]),
        static_cast<short>(scales[6][b]), static_cast<short>(scales[7][b]));
    const __m256 scale =
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(stored), 16));
    for (size_t end = at + from.block / 2; at < end; at += kInputs / 2) {
      const Steps steps(values, at);
      for (int i = 0; i < 2; ++i, out += 8 * width) {
        store_step<FULL>(&steps.bytes[2 * i], count, out + 8 * first);
        sums = _mm256_sub_ps(sums, _mm256_mul_ps(_mm256_mul_ps(steps.sums[i], zero_point), scale));
      }
    }
    const __m128i small = sixteenth(scale);
    std::memcpy(out + first * sizeof(uint16_t), &small, count * sizeof(uint16_t));
    out += width * sizeof(uint16_t);
  }
  std::memcpy(to + first * sizeof(float), &sums, count * sizeof(float));
  if (from.bias != nullptr) {
    std::memcpy(out + first * sizeof(float), from.bias + column, count * sizeof(float));
  }
}

}  // namespace

void qb4w_pack(const Qb4wWeights& from, size_t columns, uint8_t* packed) {
  const size_t bytes = qb4w_packed_bytes(from.inputs, columns, from.block, columns);
  for (size_t tile = 0; tile < from.outputs; tile += columns, packed += bytes) {
    std::memset(packed, 0, columns * sizeof(float));
    const size_t last = std::min(tile + columns, from.outputs);
    for (size_t column = tile; column < last; column += kColumns) {
      const auto pack = column + kColumns <= last ? pack_columns<true> : pack_columns<false>;
      pack(from, column, columns, column - tile, packed);
    }
  }
}

}  // namespace farm::kernels::avx2
#pragma clang attribute pop
#pragma GCC pop_options
#endif
