// Unsigned activations times signed 4-bit weights, for CPUs that multiply and add four bytes at once
// (AVX-512 VNNI). Weights are turned so that products add up in a column's own lane.
#include "qb4w.h"  // before the target: nothing of it may need this CPU

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma"))), apply_to = function)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of what GCC 12's own header leaves undefined
#include "qb4w_avx512.h"

namespace farm::kernels::avx512 {
namespace {

constexpr size_t kColumns = kQb4wColumns;
// How far ahead weights are fetched, bytes: a core of a large server waits longer for memory than a
// kilobyte takes to be read. Into the core's second cache first, for which more requests may be under
// way, then into the first. Straight into the first, 8 KiB ahead, is as fast while the weights are in
// the cache that all cores share, but slower from memory than without any of this.
constexpr size_t kFar = 16384, kNear = 2048;

template <int ROWS>
struct Rows {
  const uint8_t* a[ROWS];
  size_t blocks;
  size_t steps;  // per block
};

FARM_INLINE __m512i spread32(const uint8_t* from) {
  int32_t four;
  std::memcpy(&four, from, sizeof four);
  return _mm512_set1_epi32(four);
}

// One step: each row's activations times the weights of 16 columns, added to `totals`.
template <int ROWS>
FARM_INLINE void add_step(const Rows<ROWS>& rows, size_t step, const uint8_t* weights,
                          __m512i (&totals)[ROWS]) {
  const Fours fours(weights);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const __m512i inputs = spread32(rows.a[r] + step * kStep + 4 * i);
      totals[r] = _mm512_dpbusd_epi32(totals[r], inputs, fours.each[i]);
    }
  }
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
      _mm_prefetch(weights + kFar, _MM_HINT_T1);
      _mm_prefetch(weights + kFar + 64, _MM_HINT_T1);
      fetch_step(weights + kNear);
      add_step<ROWS>(rows, step, weights, totals);
    }
    // Without this the line between two blocks would be left out now and then.
    _mm_prefetch(weights + kFar, _MM_HINT_T1);
    _mm_prefetch(weights + kNear, _MM_HINT_T0);
    const __m512 scales = load_scales(weights);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[r]), scales, sums[r]);
    }
  }
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
#pragma GCC unroll 8
    for (size_t r = 0; r < ROWS; ++r) {
      finish(sums[r], bias, quantised[r].scale, params, left, to + r * row_stride);
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
#pragma clang attribute pop
#pragma GCC pop_options
#endif
