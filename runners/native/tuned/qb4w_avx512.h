// What products of unsigned bytes with packed 4-bit weights share. Include only where functions have a
// target with avx512f and avx512bw.
#pragma once

#include <immintrin.h>

#include "qb4w.h"

namespace farm::kernels::avx512 {

constexpr size_t kStep = 16;  // inputs of a column that lie side by side, two in a byte
constexpr size_t kStepBytes = kStep * kQb4wColumns / 2;

// A step's weights in the order of a product: four inputs of each of 16 columns in a vector, inputs
// 0-3, 4-7, 8-11 and 12-15. They count in the upper half of a byte, 16 times as much, as XNNPACK's
// scales expect.
struct Fours {
  __m512i each[4];

  FARM_INLINE explicit Fours(const uint8_t* packed) {
    const __m512i upper = _mm512_set1_epi8(static_cast<char>(0xF0));
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd =
        _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    const __m512i first = _mm512_loadu_si512(packed);
    const __m512i second = _mm512_loadu_si512(packed + 64);
    const __m512i evens = _mm512_permutex2var_epi32(first, even, second);
    const __m512i odds = _mm512_permutex2var_epi32(first, odd, second);
    each[0] = _mm512_and_si512(_mm512_slli_epi32(evens, 4), upper);
    each[1] = _mm512_and_si512(_mm512_slli_epi32(odds, 4), upper);
    each[2] = _mm512_and_si512(evens, upper);
    each[3] = _mm512_and_si512(odds, upper);
  }
};

// Weights are read once, faster than the hardware alone would fetch them.
FARM_INLINE void fetch_step(const uint8_t* packed) {
  _mm_prefetch(packed, _MM_HINT_T0);
  _mm_prefetch(packed + 64, _MM_HINT_T0);
}

FARM_INLINE __m512 load_scales(const uint8_t* from) {
  const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(stored), 16));
}

// The results of a row in a tile, of which `left` columns are there, from its sums.
FARM_INLINE void finish(__m512 sums, __m512 bias, float scale, const Qb4wParams& params,
                        size_t left, void* to) {
  // XNNPACK rounds the product before it adds the bias; from a plain one the compiler makes an FMA.
  const __m512 scaled =
      _mm512_mul_round_ps(sums, _mm512_set1_ps(scale), _MM_FROUND_CUR_DIRECTION);
  const __m512 results =
      _mm512_min_ps(_mm512_max_ps(_mm512_add_ps(scaled, bias), _mm512_set1_ps(params.min)),
                    _mm512_set1_ps(params.max));
  const auto there = static_cast<__mmask16>(left >= kQb4wColumns ? 0xFFFF : (1U << left) - 1);
  _mm512_mask_storeu_ps(to, there, results);
}

}  // namespace farm::kernels::avx512
