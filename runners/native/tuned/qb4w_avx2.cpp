// 4-bit weights as unsigned bytes times signed activations: one multiplication of 32 bytes does what
// four of widened 16-bit integers would. The offset of 8 that makes weights unsigned is taken away
// once per block, from sums of the activations.
#include "qb4w.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include <immintrin.h>

namespace farm::kernels::avx2 {
namespace {

constexpr size_t kColumns = kQb4wColumns;
constexpr size_t kStep = 32;                       // inputs whose products fit 16-bit sums
constexpr size_t kStepBytes = kStep * kColumns / 2;
constexpr size_t kSteps = kQb4wInputs / kStep;
constexpr int kOffset = 8;
constexpr size_t kAhead = 1024;  // bytes

// For one row: per step 8 times the sums of its inputs, in the four lanes that products fall into.
struct Offsets {
  int64_t lanes[kSteps];
};

inline __m256i spread64(const void* from) {
  int64_t bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return _mm256_set1_epi64x(bytes);
}

inline void sum_offsets(const int8_t* a, size_t steps, Offsets& to) {
  const __m256i offset = _mm256_set1_epi8(kOffset);
  for (size_t s = 0; s < steps; ++s) {
    const __m256i inputs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + s * kStep));
    const __m256i pairs = _mm256_maddubs_epi16(offset, inputs);
    const __m128i half =
        _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    to.lanes[s] = _mm_cvtsi128_si64(_mm_add_epi16(half, _mm_unpackhi_epi64(half, half)));
  }
}

// Four vectors from eight values: one value in the lower, the next in the upper half of each.
struct Pairs {
  __m256 each[4];

  explicit Pairs(__m256 eight) {
    const __m256i even_then_odd = _mm256_set_epi32(7, 5, 3, 1, 6, 4, 2, 0);
    const __m256 halves = _mm256_permutevar8x32_ps(eight, even_then_odd);
    each[0] = _mm256_permute_ps(halves, 0x00);
    each[1] = _mm256_permute_ps(halves, 0x55);
    each[2] = _mm256_permute_ps(halves, 0xAA);
    each[3] = _mm256_permute_ps(halves, 0xFF);
  }
};

// Scales of a block. XNNPACK leaves weights in the upper half of a byte, and 1/16 in the scale.
inline __m256 load_scales(const uint8_t* from) {
  const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(stored), 16);
  return _mm256_mul_ps(_mm256_castsi256_ps(wide), _mm256_set1_ps(16.0F));
}

// Weights are read once, faster than the hardware alone would fetch them.
inline void prefetch(const uint8_t* weights) {
  _mm_prefetch(weights + kAhead, _MM_HINT_T0);
  _mm_prefetch(weights + kAhead + 64, _MM_HINT_T0);
}

template <int ROWS>
struct Rows {
  const int8_t* a[ROWS];
  const Offsets* offsets;
  size_t blocks;
  size_t steps;  // per block
};

// Sums of one row and two columns: four lanes of each.
template <int ROWS, int PAIRS>
struct Sums {
  __m256 pair[PAIRS][ROWS];
};

// Products of one step with PAIRS pairs of columns: added to `totals`, or with ONLY the totals.
template <bool ONLY, int ROWS, int PAIRS>
FARM_INLINE void add_step(const Rows<ROWS>& rows, size_t step, const uint8_t* weights,
                          __m256i (&totals)[PAIRS][ROWS]) {
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x88));
  __m256i products[PAIRS / 2][ROWS];
#pragma GCC unroll 2
  for (int part = 0; part < 2; ++part) {
#pragma GCC unroll 2
    for (int h = 0; h < PAIRS / 2; ++h) {
      const uint8_t* from = weights + 64 * part + 32 * h;
      const __m256i packed =
          _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)), flip);
      const __m256i low = _mm256_and_si256(packed, nibble);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
#pragma GCC unroll 3
      for (int r = 0; r < ROWS; ++r) {
        const int8_t* inputs = rows.a[r] + step * kStep + 16 * part;
        const __m256i product = _mm256_add_epi16(_mm256_maddubs_epi16(low, spread64(inputs)),
                                                 _mm256_maddubs_epi16(high, spread64(inputs + 8)));
        products[h][r] = part == 0 ? product : _mm256_add_epi16(products[h][r], product);
      }
    }
  }
#pragma GCC unroll 2
  for (int h = 0; h < PAIRS / 2; ++h) {
#pragma GCC unroll 3
    for (int r = 0; r < ROWS; ++r) {
      const __m256i exact = _mm256_sub_epi16(products[h][r], spread64(&rows.offsets[r].lanes[step]));
      const __m256i first = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(exact));
      const __m256i second = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(exact, 1));
      totals[2 * h][r] = ONLY ? first : _mm256_add_epi32(totals[2 * h][r], first);
      totals[2 * h + 1][r] = ONLY ? second : _mm256_add_epi32(totals[2 * h + 1][r], second);
    }
  }
}

// All blocks for the PAIRS pairs of columns from `FIRST` on; `weights` is where the tile's begin. With
// SHORT a block is one step.
template <bool SHORT, int ROWS, int PAIRS, int FIRST>
FARM_INLINE void add_blocks(const Rows<ROWS>& rows, const uint8_t* weights,
                            Sums<ROWS, PAIRS>& result) {
  Sums<ROWS, PAIRS> sums = result;
  for (size_t step = 0; step < rows.blocks * rows.steps; weights += 2 * kColumns) {
    __m256i totals[PAIRS][ROWS];
#pragma GCC unroll 12
    for (int i = 0; i < PAIRS * ROWS; ++i) totals[i / ROWS][i % ROWS] = _mm256_setzero_si256();
    const size_t end = step + (SHORT ? 1 : rows.steps);
    do {
      if (FIRST == 0) prefetch(weights);
      add_step<SHORT, ROWS, PAIRS>(rows, step, weights + 16 * FIRST, totals);
      weights += kStepBytes;
    } while (++step != end);
    const Pairs scales(load_scales(weights));
#pragma GCC unroll 4
    for (int p = 0; p < PAIRS; ++p) {
#pragma GCC unroll 3
      for (int r = 0; r < ROWS; ++r) {
        sums.pair[p][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[p][r]), scales.each[FIRST + p],
                                          sums.pair[p][r]);
      }
    }
  }
  result = sums;
}

// Adds up the lanes of eight columns and makes results of them.
inline __m256 finish(const __m256 (&pairs)[4], __m256 bias, float scale, const Qb4wParams& params) {
  const __m256 mixed =
      _mm256_hadd_ps(_mm256_hadd_ps(pairs[0], pairs[1]), _mm256_hadd_ps(pairs[2], pairs[3]));
  const __m256 sums = _mm256_permutevar8x32_ps(mixed, _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0));
  const __m256 scaled = _mm256_fmadd_ps(sums, _mm256_set1_ps(scale), bias);
  return _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(params.min)),
                       _mm256_set1_ps(params.max));
}

// Zero point times each column's sum of weights, in the first of the column's lanes.
template <int ROWS, int PAIRS, int FIRST>
FARM_INLINE Sums<ROWS, PAIRS> begin(const Pairs& column_sums, const Qb4wRow* quantised) {
  const __m256 first_lane = _mm256_castsi256_ps(_mm256_set_epi32(0, 0, 0, -1, 0, 0, 0, -1));
  Sums<ROWS, PAIRS> sums;
  for (int p = 0; p < PAIRS; ++p) {
    for (int r = 0; r < ROWS; ++r) {
      sums.pair[p][r] = _mm256_mul_ps(_mm256_and_ps(column_sums.each[FIRST + p], first_lane),
                                      _mm256_set1_ps(static_cast<float>(quantised[r].zero_point)));
    }
  }
  return sums;
}

// One tile of eight columns: sums[pair][row].
template <bool SHORT, int ROWS>
FARM_INLINE void add_tile(const Rows<ROWS>& rows, const Pairs& column_sums, const uint8_t* weights,
                          const Qb4wRow* quantised, __m256 (&sums)[ROWS][4]) {
  const auto take = [&](const auto& part, int first, int pairs) {
    for (int p = 0; p < pairs; ++p) {
      for (int r = 0; r < ROWS; ++r) sums[r][first + p] = part.pair[p][r];
    }
  };
  if constexpr (ROWS == 1) {
    auto all = begin<ROWS, 4, 0>(column_sums, quantised);
    add_blocks<SHORT, ROWS, 4, 0>(rows, weights, all);
    take(all, 0, 4);
  } else {  // more would not fit the registers
    auto low = begin<ROWS, 2, 0>(column_sums, quantised);
    add_blocks<SHORT, ROWS, 2, 0>(rows, weights, low);
    take(low, 0, 2);
    auto high = begin<ROWS, 2, 2>(column_sums, quantised);
    add_blocks<SHORT, ROWS, 2, 2>(rows, weights, high);
    take(high, 2, 2);
  }
}

template <int ROWS>
void gemm(size_t columns, size_t inputs, const int8_t* a, size_t a_stride, const uint8_t* weights,
          float* c, size_t row_stride, size_t tile_stride, const Qb4wParams& params,
          const Qb4wRow* quantised) {
  Offsets offsets[ROWS];
  Rows<ROWS> rows{{}, offsets, inputs / params.block, params.block / kStep};
  for (int r = 0; r < ROWS; ++r) {
    rows.a[r] = a + static_cast<size_t>(r) * a_stride;
    sum_offsets(rows.a[r], inputs / kStep, offsets[r]);
  }
  const size_t bytes = rows.blocks * (rows.steps * kStepBytes + 2 * kColumns);
  auto* to = reinterpret_cast<char*>(c);
  for (size_t left = columns; left > 0; left -= std::min(left, kColumns), to += tile_stride) {
    const Pairs column_sums(_mm256_loadu_ps(reinterpret_cast<const float*>(weights)));
    weights += kColumns * sizeof(float);
    __m256 sums[ROWS][4];
    if (rows.steps == 1) {
      add_tile<true, ROWS>(rows, column_sums, weights, quantised, sums);
    } else {
      add_tile<false, ROWS>(rows, column_sums, weights, quantised, sums);
    }
    weights += bytes;
    const __m256 bias = _mm256_loadu_ps(reinterpret_cast<const float*>(weights));
    weights += kColumns * sizeof(float);
    for (int r = 0; r < ROWS; ++r) {
      const __m256 results = finish(sums[r], bias, quantised[r].scale, params);
      auto* row = reinterpret_cast<float*>(to + static_cast<size_t>(r) * row_stride);
      if (left >= kColumns) {
        _mm256_storeu_ps(row, results);
        continue;
      }
      alignas(32) float rest[kColumns];
      _mm256_store_ps(rest, results);
      std::memcpy(row, rest, left * sizeof(float));
    }
  }
}

}  // namespace

void qb4w_gemm(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
               const void* weights, float* c, size_t row_stride, size_t tile_stride,
               const Qb4wParams* params, const Qb4wRow* quantised) {
  const auto* packed = static_cast<const uint8_t*>(weights);
  const auto run = rows == 1 ? gemm<1> : rows == 2 ? gemm<2> : gemm<3>;
  run(columns, inputs, a, a_stride, packed, c, row_stride, tile_stride, *params, quantised);
}

}  // namespace farm::kernels::avx2
#pragma clang attribute pop
#pragma GCC pop_options
#endif
