// Sixteen rows at a time on CPUs with a matrix unit (AMX). It multiplies 16 rows of 32 activations with
// 32 weights of 16 columns in one instruction, and that is one block: its sums go through memory to be
// scaled and added up in fp32. Loading, multiplying and storing a tile each take tens of cycles, so
// blocks go four at a time, and their activations are loaded once for a strip of tiles.
#include "qb4w.h"  // before the target: nothing of it may need this CPU

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,amx-tile,amx-int8")
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,amx-tile,amx-int8"))), apply_to = function)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of what GCC 12's own header leaves undefined
#include "qb4w_avx512.h"

namespace farm::kernels::amx {
namespace {

constexpr size_t kColumns = kQb4wColumns;
constexpr size_t kBlock = 32;  // inputs
constexpr size_t kBlockBytes = kBlock * kColumns / 2;
constexpr size_t kPackedBlock = kBlockBytes + 2 * kColumns;  // with its scales
constexpr size_t kGroup = 4;  // blocks
constexpr size_t kStrip = 4;  // tiles of columns
constexpr size_t kAhead = kGroup * kPackedBlock;  // bytes

// How tile registers 0-7 are used: sums of two blocks in turn, weights in turn, activations of four.
struct alignas(64) Shapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  explicit Shapes(size_t count) {
    for (size_t tile = 0; tile < 8; ++tile) {
      const bool weights = tile == 2 || tile == 3;
      rows[tile] = static_cast<uint8_t>(weights ? kBlock / 4 : count);
      row_bytes[tile] = tile < 4 ? 64 : kBlock;
    }
  }
};

// One call's memory; everything a tile holds is a whole number of cache lines.
struct Work {
  alignas(64) int8_t weights[kStrip][kGroup][kBlock * kColumns];
  alignas(64) int32_t totals[kGroup][kQb4wRows][kColumns];
  alignas(64) float sums[kStrip][kQb4wRows][kColumns];
};

// A block's weights in the order of the matrix unit.
FARM_INLINE void unpack(const uint8_t* packed, int8_t* to) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half, packed += avx512::kStepBytes) {
    avx512::fetch_step(packed + kAhead);
    const avx512::Fours fours(packed);
    for (const __m512i& four : fours.each) {
      _mm512_store_si512(to, four);
      to += sizeof four;
    }
  }
}

// Scales the totals of BLOCKS blocks and adds them to the sums of a tile, block after block.
template <size_t BLOCKS>
FARM_INLINE void add_totals(const int32_t (*totals)[kQb4wRows][kColumns], const uint8_t* packed,
                            size_t rows, float (*sums)[kColumns]) {
  __m512 scales[BLOCKS];
  for (size_t b = 0; b < BLOCKS; ++b) {
    scales[b] = avx512::load_scales(packed + b * kPackedBlock + kBlockBytes);
  }
  for (size_t r = 0; r < rows; ++r) {
    __m512 sum = _mm512_load_ps(sums[r]);
    for (size_t b = 0; b < BLOCKS; ++b) {
      sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(totals[b][r])), scales[b], sum);
    }
    _mm512_store_ps(sums[r], sum);
  }
}

// Names of tile registers have to be literals.
#define FARM_BLOCK(SUMS, WEIGHTS, ACTIVATIONS, BLOCK)  \
  _tile_loadd(WEIGHTS, work.weights[t][BLOCK], 64);    \
  _tile_zero(SUMS);                                    \
  _tile_dpbusd(SUMS, ACTIVATIONS, WEIGHTS);            \
  _tile_stored(SUMS, work.totals[BLOCK], 64)

// BLOCKS blocks of a strip of tiles.
template <size_t BLOCKS>
FARM_INLINE void add_group(Work& work, size_t rows, const uint8_t* a, size_t a_stride,
                           const uint8_t* packed, size_t tile_bytes, size_t tiles) {
  for (size_t t = 0; t < tiles; ++t) {
    for (size_t b = 0; b < BLOCKS; ++b) {
      unpack(packed + t * tile_bytes + b * kPackedBlock, work.weights[t][b]);
    }
  }
  _tile_loadd(4, a, a_stride);
  if constexpr (BLOCKS == kGroup) {
    _tile_loadd(5, a + kBlock, a_stride);
    _tile_loadd(6, a + 2 * kBlock, a_stride);
    _tile_loadd(7, a + 3 * kBlock, a_stride);
  }
  for (size_t t = 0; t < tiles; ++t) {
    FARM_BLOCK(0, 2, 4, 0);
    if constexpr (BLOCKS == kGroup) {
      FARM_BLOCK(1, 3, 5, 1);
      FARM_BLOCK(0, 2, 6, 2);
      FARM_BLOCK(1, 3, 7, 3);
    }
    add_totals<BLOCKS>(work.totals, packed + t * tile_bytes, rows, work.sums[t]);
  }
}

}  // namespace

bool allow() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool there = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 24 & 3) == 3;
  return there && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

void qb4w_gemm(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
               const void* weights, float* c, size_t row_stride, size_t tile_stride,
               const Qb4wParams* params, const Qb4wRow* quantised) {
  const Shapes shapes(rows);
  Work work;
  _tile_loadconfig(&shapes);
  const size_t blocks = inputs / kBlock;
  const size_t tile_bytes = blocks * kPackedBlock + 2 * kColumns * sizeof(float);
  const auto* rows_of_bytes = reinterpret_cast<const uint8_t*>(a);
  const auto* packed = static_cast<const uint8_t*>(weights);
  auto* to = reinterpret_cast<char*>(c);
  for (size_t left = columns; left > 0; left -= std::min(left, kStrip * kColumns)) {
    const size_t tiles = std::min((left + kColumns - 1) / kColumns, kStrip);
    for (size_t t = 0; t < tiles; ++t) {
      const __m512 column_sums = _mm512_loadu_ps(packed + t * tile_bytes);
      for (size_t r = 0; r < rows; ++r) {
        const auto zero = static_cast<float>(quantised[r].zero_point);
        _mm512_store_ps(work.sums[t][r], _mm512_mul_ps(column_sums, _mm512_set1_ps(zero)));
      }
    }
    const uint8_t* first = packed + kColumns * sizeof(float);
    size_t b = 0;
    for (; b + kGroup <= blocks; b += kGroup) {
      add_group<kGroup>(work, rows, rows_of_bytes + b * kBlock, a_stride, first + b * kPackedBlock,
                        tile_bytes, tiles);
    }
    for (; b < blocks; ++b) {
      add_group<1>(work, rows, rows_of_bytes + b * kBlock, a_stride, first + b * kPackedBlock,
                   tile_bytes, tiles);
    }
    for (size_t t = 0; t < tiles; ++t, to += tile_stride, packed += tile_bytes) {
      const __m512 bias = _mm512_loadu_ps(packed + tile_bytes - kColumns * sizeof(float));
      const size_t known = left - t * kColumns;
      for (size_t r = 0; r < rows; ++r) {
        avx512::finish(_mm512_load_ps(work.sums[t][r]), bias, quantised[r].scale, *params, known,
                       to + r * row_stride);
      }
    }
  }
  _tile_release();
}

}  // namespace farm::kernels::amx
#pragma GCC diagnostic pop
#pragma clang attribute pop
#pragma GCC pop_options
#endif
