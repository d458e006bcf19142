// The products behind 4-bit linears: rows of 8-bit activations with 4-bit weights in blocks, as
// XNNPACK packs them for its `qd8_f32_qb4w` (signed activations, tiles of 8 columns) and
// `qdu8_f32_qb4w` (unsigned, 16 columns), and that packing. The same bits as XNNPACK's own code:
// integers are exact in any order, and the fp32 steps keep its lanes and order.
#pragma once

#include <cstddef>
#include <cstdint>

// Loops of products are unrolled into registers; called, their arguments would live in memory.
#define FARM_INLINE inline __attribute__((always_inline))

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

constexpr size_t kQb4wInputs = 32768;  // most inputs

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

// The columns of a tile are packed as their sums, blocks of weights with scales, their biases.
constexpr size_t qb4w_packed_bytes(size_t inputs, size_t outputs, size_t block, size_t columns) {
  const size_t tiles = (outputs + columns - 1) / columns;
  return tiles * columns * (2 * sizeof(float) + inputs / 2 + inputs / block * 2);
}

// All are for blocks of a multiple of 32 and up to kQb4wInputs inputs.
namespace avx2 {
constexpr size_t kQb4wRows = 3;  // most rows of one call
constexpr size_t kQb4wColumns = 8;  // of a tile

void qb4w_gemm(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
               const void* weights, float* c, size_t row_stride, size_t tile_stride,
               const Qb4wParams* params, const Qb4wRow* quantised);

// Tiles of 8 or 16 columns. Bytes of biases or columns that aren't there stay as they are, as XNNPACK
// leaves them.
void qb4w_pack(const Qb4wWeights& from, size_t columns, uint8_t* packed);
}  // namespace avx2

namespace avx512 {
constexpr size_t kQb4wRows = 8;
constexpr size_t kQb4wColumns = 16;

// The activations are bytes without a sign.
void qb4w_gemm(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
               const void* weights, float* c, size_t row_stride, size_t tile_stride,
               const Qb4wParams* params, const Qb4wRow* quantised);
}  // namespace avx512

namespace amx {
constexpr size_t kQb4wRows = 16;
constexpr size_t kQb4wColumns = 16;

// Whether this CPU has the matrix unit and this process may use it, which it asks for.
bool allow();

// As above, for blocks of 32 alone.
void qb4w_gemm(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
               const void* weights, float* c, size_t row_stride, size_t tile_stride,
               const Qb4wParams* params, const Qb4wRow* quantised);
}  // namespace amx

}  // namespace farm::kernels
