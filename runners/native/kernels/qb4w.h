// The product behind 4-bit linears: rows of int8 activations with 4-bit weights in blocks, as
// XNNPACK packs them for eight columns (`qd8_f32_qb4w`, 8c8), and that packing. The same bits as
// XNNPACK's own code: integers are exact in any order, and the fp32 steps keep its lanes and order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace farm::kernels {

struct Qb4wParams {
  float min;
  float max;
  size_t block;  // inputs that share a scale
};

struct Qb4wRow {
  int32_t zero_point;
  float scale;
};

// XNNPACK's signature: `rows` x `columns` results of `inputs` inputs; strides are bytes.
using Qb4wGemm = void (*)(size_t rows, size_t columns, size_t inputs, const int8_t* a,
                          size_t a_stride, const void* weights, float* c, size_t row_stride,
                          size_t tile_stride, const Qb4wParams* params, const Qb4wRow* quantised);

constexpr size_t kQb4wRows = 3;        // most rows of one call
constexpr size_t kQb4wInputs = 32768;  // most inputs

constexpr size_t kQb4wColumns = 8;  // of a tile

// Weights before packing.
struct Qb4wWeights {
  size_t inputs;
  size_t outputs;
  size_t block;
  const uint8_t* values;   // [outputs, inputs]: 8 more than the weight, two in a byte
  const uint16_t* scales;  // bf16 [outputs, inputs / block]
  const float* bias;       // [outputs], or null
  int32_t zero_point;      // of the inputs, for the sums of weights
};

// Each eight columns are packed as their sums, blocks of weights with scales, their biases.
constexpr size_t qb4w_packed_bytes(size_t inputs, size_t outputs, size_t block) {
  const size_t tiles = (outputs + kQb4wColumns - 1) / kQb4wColumns;
  return tiles * kQb4wColumns * (2 * sizeof(float) + inputs / 2 + inputs / block * 2);
}

namespace avx2 {
// For blocks of a multiple of 32, up to kQb4wRows rows and kQb4wInputs inputs.
void qb4w_gemm(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
               const void* weights, float* c, size_t row_stride, size_t tile_stride,
               const Qb4wParams* params, const Qb4wRow* quantised);

// For blocks of a multiple of 32. Bytes of biases or columns that aren't there stay as they are, as
// XNNPACK leaves them.
void qb4w_pack(const Qb4wWeights& from, uint8_t* packed);
}  // namespace avx2

}  // namespace farm::kernels
