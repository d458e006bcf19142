// XNNPACK's operator for 4-bit linears: its public interface, and of its internals the table that it
// calls. Only on x86-64 with glibc.
#pragma once

#include <cstdlib>  // defines __GLIBC__

#if defined(__x86_64__) && defined(__GLIBC__)
#define FARM_XNNPACK_TABLE 1

#include <cstddef>
#include <cstdint>
#include <vector>

#include "qb4w.h"

namespace farm::kernels {

using Operator = void;

// Both forms of the operator take the same arguments.
struct Library {
  int (*initialize)(const void* allocator);
  int (*create)(size_t inputs, size_t outputs, size_t input_stride, size_t output_stride,
                size_t block, uint8_t zero_point, const uint16_t* scales, const void* kernel,
                const float* bias, float min, float max, uint32_t flags, void* cache,
                Operator** out);
  int (*reshape)(Operator*, size_t rows, size_t* workspace_bytes, void* pool);
  int (*setup)(Operator*, const int8_t* input, float* output, void* workspace,
               const Qb4wRow* quantised);
  int (*run)(Operator*, void* pool);
  int (*remove)(Operator*);

  // Finds and initialises the XNNPACK of this process, with the form of the operator that it takes
  // for rows quantised on the way: with unsigned activations where it has code for this CPU.
  bool load();
  bool unsigned_rows = false;
};

struct PackingParams {
  int8_t input_zero_point;
  uint8_t kernel_zero_point;
};

struct Table;

// How XNNPACK has the weights of an operator packed.
using Pack = void (*)(uint32_t flags, const Table* table, size_t inputs, size_t outputs,
                      size_t groups, size_t block, size_t stride, const float* bias,
                      const uint8_t* weights, const void* unused_init0, const void* unused0,
                      size_t unused_size0, const void* unused_init1, const uint16_t* scales,
                      size_t scale_size, uint8_t* packed, const PackingParams* params);

// ExecuTorch 1.5.1's XNNPACK describes a product so: code for 1, 2, 3... rows (null: none of its own),
// code that packs weights, most rows of a call, and the shape of a packed tile.
constexpr size_t kMostRows = 16;
struct Table {
  Qb4wGemm gemm[kMostRows];
  uint8_t other[0x308 - kMostRows * sizeof(Qb4wGemm)];
  Pack pack;
  size_t (*packed_stride)(const Table*, size_t, size_t, size_t, size_t);
  uint8_t more[0x348 - 0x318];
  uint8_t rows;
  uint8_t columns;
  uint8_t log2_inputs;  // of a column that lie side by side
  uint8_t log2_shuffle;
  uint8_t planes;  // 2: a byte holds an input and the one that many further on
};
static_assert(offsetof(Table, pack) == 0x308 && offsetof(Table, rows) == 0x348);

struct Shape {
  size_t inputs, outputs, block, rows;
  bool bias;
  uint64_t seed;
};

// A product with made-up numbers through XNNPACK's own interface.
class Trial {
 public:
  Trial(const Library& library, const Shape& shape);
  ~Trial();
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  // Whether XNNPACK took the shape, and packed the weights.
  bool created() const { return created_; }
  bool run(std::vector<float>& out);
  // The table that the operator points to; null when nothing there looks like one.
  Table* table() const;

 private:
  uint32_t draw();

  const Library& library_;
  Shape shape_;
  uint64_t state_;
  Operator* op_ = nullptr;
  bool created_ = false;
};

// Whether the table has code for packing where Table says, and tiles of a shape that we pack.
bool packs_as_known(const Table& table);

}  // namespace farm::kernels
#endif
