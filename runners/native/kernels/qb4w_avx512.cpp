// Unsigned activations times signed 4-bit weights, for CPUs that multiply and add four bytes at once
// (AVX-512 VNNI). The two vectors that a step of 16 columns is packed as are turned into one with
// inputs 0-3 and one with inputs 4-7 of every column, so that products add up in a column's own lane.
#include "qb4w.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of what GCC 12's own header leaves undefined
#include <immintrin.h>

// The loops below are unrolled into registers; called, their arguments would live in memory.
#define FARM_INLINE inline __attribute__((always_inline))

namespace farm::kernels::avx512 {
namespace {

constexpr size_t kColumns = kQb4wColumns;
constexpr size_t kStep = 16;  // inputs of a column that lie side by side, two in a byte
constexpr size_t kStepBytes = kStep * kColumns / 2;
// Far ahead: a core of a large server waits longer for memory than a kilobyte takes to be read. The
// fastest of 896 to 16,384 there.
constexpr size_t kAhead = 8192;  // bytes

template <int ROWS>
struct Rows {
  const uint8_t* a[ROWS];
  size_t blocks;
  size_t steps;  // per block
};

// Weights are read once, faster than the hardware alone would fetch them.
FARM_INLINE void prefetch(const uint8_t* weights) {
  _mm_prefetch(weights + kAhead, _MM_HINT_T0);
  _mm_prefetch(weights + kAhead + 64, _MM_HINT_T0);
}

FARM_INLINE __m512i spread32(const uint8_t* from) {
  int32_t four;
  std::memcpy(&four, from, sizeof four);
  return _mm512_set1_epi32(four);
}

// One step: each row's activations times the weights of 16 columns, added to `totals`. Weights count
// in the upper half of a byte, 16 times as much, as XNNPACK's scales expect.
template <int ROWS>
FARM_INLINE void add_step(const Rows<ROWS>& rows, size_t step, const uint8_t* weights,
                          __m512i (&totals)[ROWS]) {
  const __m512i upper = _mm512_set1_epi8(static_cast<char>(0xF0));
  const __m512i even =
      _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd =
      _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  const __m512i first = _mm512_loadu_si512(weights);
  const __m512i second = _mm512_loadu_si512(weights + 64);
  const __m512i evens = _mm512_permutex2var_epi32(first, even, second);
  const __m512i odds = _mm512_permutex2var_epi32(first, odd, second);
  const __m512i fours[4] = {_mm512_and_si512(_mm512_slli_epi32(evens, 4), upper),
                            _mm512_and_si512(_mm512_slli_epi32(odds, 4), upper),
                            _mm512_and_si512(evens, upper), _mm512_and_si512(odds, upper)};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      totals[r] =
          _mm512_dpbusd_epi32(totals[r], spread32(rows.a[r] + step * kStep + 4 * i), fours[i]);
    }
  }
}

FARM_INLINE __m512 load_scales(const uint8_t* from) {
  const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(stored), 16));
}

// All blocks of a tile; `weights` is where they begin. With SHORT a block is two steps.
template <bool SHORT, int ROWS>
FARM_INLINE void add_blocks(const Rows<ROWS>& rows, const uint8_t* weights, __m512 (&sums)[ROWS]) {
  const size_t steps = SHORT ? 2 : rows.steps;
  for (size_t first = 0; first < rows.blocks * steps; first += steps, weights += 2 * kColumns) {
    __m512i totals[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) totals[r] = _mm512_setzero_si512();
#pragma GCC unroll 2
    for (size_t step = first; step < first + steps; ++step, weights += kStepBytes) {
      prefetch(weights);
      add_step<ROWS>(rows, step, weights, totals);
    }
    const __m512 scales = load_scales(weights);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[r]), scales, sums[r]);
    }
  }
}

// XNNPACK rounds the product before it adds the bias; from a plain one the compiler would make an FMA.
FARM_INLINE __m512 finish(__m512 sum, __m512 bias, float scale, const Qb4wParams& params) {
  const __m512 scaled =
      _mm512_mul_round_ps(sum, _mm512_set1_ps(scale), _MM_FROUND_CUR_DIRECTION);
  return _mm512_min_ps(_mm512_max_ps(_mm512_add_ps(scaled, bias), _mm512_set1_ps(params.min)),
                       _mm512_set1_ps(params.max));
}

template <int ROWS>
void gemm(size_t columns, size_t inputs, const int8_t* a, size_t a_stride, const uint8_t* weights,
          float* c, size_t row_stride, size_t tile_stride, const Qb4wParams& params,
          const Qb4wRow* quantised) {
  Rows<ROWS> rows{{}, inputs / params.block, params.block / kStep};
  for (size_t r = 0; r < ROWS; ++r) {
    rows.a[r] = reinterpret_cast<const uint8_t*>(a) + r * a_stride;
  }
  const size_t bytes = rows.blocks * (rows.steps * kStepBytes + 2 * kColumns);
  auto* to = reinterpret_cast<char*>(c);
  for (size_t left = columns; left > 0; left -= std::min(left, kColumns), to += tile_stride) {
    const __m512 column_sums = _mm512_loadu_ps(weights);
    weights += kColumns * sizeof(float);
    __m512 sums[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      sums[r] = _mm512_mul_ps(column_sums,
                              _mm512_set1_ps(static_cast<float>(quantised[r].zero_point)));
    }
    if (rows.steps == 2) {
      add_blocks<true, ROWS>(rows, weights, sums);
    } else {
      add_blocks<false, ROWS>(rows, weights, sums);
    }
    weights += bytes;
    const __m512 bias = _mm512_loadu_ps(weights);
    weights += kColumns * sizeof(float);
    const auto there =
        static_cast<__mmask16>(left >= kColumns ? 0xFFFF : (1U << left) - 1);
#pragma GCC unroll 8
    for (size_t r = 0; r < ROWS; ++r) {
      _mm512_mask_storeu_ps(to + r * row_stride, there,
                            finish(sums[r], bias, quantised[r].scale, params));
    }
  }
}

}  // namespace

void qb4w_gemm(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
               const void* weights, float* c, size_t row_stride, size_t tile_stride,
               const Qb4wParams* params, const Qb4wRow* quantised) {
  constexpr decltype(&gemm<1>) kByRows[] = {gemm<1>, gemm<2>, gemm<3>, gemm<4>,
                                            gemm<5>, gemm<6>, gemm<7>, gemm<8>};
  const auto* packed = static_cast<const uint8_t*>(weights);
  kByRows[rows - 1](columns, inputs, a, a_stride, packed, c, row_stride, tile_stride, *params,
                    quantised);
}

}  // namespace farm::kernels::avx512
#pragma GCC diagnostic pop
#pragma GCC pop_options
#endif
