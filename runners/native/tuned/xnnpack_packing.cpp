#include "xnnpack_packing.h"

#ifdef FARM_XNNPACK_TABLE
#include <cstring>

namespace farm::kernels {
namespace {

constexpr uint32_t kTransposed = 1;  // XNN_FLAG_TRANSPOSE_WEIGHTS

struct Call {
  uint32_t flags;
  const Table* table;
  size_t inputs, outputs, groups, block, stride;
  const float* bias;
  const uint8_t* weights;
  const void* init0;
  const void* unused0;
  size_t size0;
  const void* init1;
  const uint16_t* scales;
  size_t scale_size;
  uint8_t* packed;
  const PackingParams* params;

  bool known() const {
    return (flags & kTransposed) == 0 && groups == 1 && block > 0 && block % 32 == 0 &&
           inputs % block == 0 && params->kernel_zero_point == 8;
  }
};

Pack theirs = nullptr;
PackingProof proof;

void pack_theirs(const Call& c) {
  theirs(c.flags, c.table, c.inputs, c.outputs, c.groups, c.block, c.stride, c.bias, c.weights,
         c.init0, c.unused0, c.size0, c.init1, c.scales, c.scale_size, c.packed, c.params);
}

void pack_ours(const Call& c, uint8_t* packed) {
  avx2::qb4w_pack({c.inputs, c.outputs, c.block, c.weights, c.scales, c.bias,
                   c.params->input_zero_point},
                  c.table->columns, packed);
}

void pack_if_known(const Call& c) {
  if (c.known()) {
    pack_ours(c, c.packed);
  } else {
    pack_theirs(c);
  }
}

void pack_twice(const Call& c) {
  if (!c.known()) return pack_theirs(c);
  const size_t bytes = qb4w_packed_bytes(c.inputs, c.outputs, c.block, c.table->columns);
  std::vector<uint8_t> ours(c.packed, c.packed + bytes);  // both leave gaps as they were
  pack_theirs(c);
  pack_ours(c, ours.data());
  ++proof.compared;
  if (std::memcmp(ours.data(), c.packed, bytes) != 0) ++proof.unequal;
}

template <void (*DO)(const Call&)>
void packer(uint32_t flags, const Table* table, size_t inputs, size_t outputs, size_t groups,
            size_t block, size_t stride, const float* bias, const uint8_t* weights,
            const void* init0, const void* unused0, size_t size0, const void* init1,
            const uint16_t* scales, size_t scale_size, uint8_t* packed,
            const PackingParams* params) {
  DO({flags, table, inputs, outputs, groups, block, stride, bias, weights, init0, unused0, size0,
      init1, scales, scale_size, packed, params});
}

}  // namespace

void compare_packing(Table& table) {
  theirs = table.pack;
  proof = {};
  table.pack = packer<pack_twice>;
}

PackingProof packing_proof() { return proof; }

void lend_packing(Table& table) { table.pack = packer<pack_if_known>; }

void return_packing(Table& table) { table.pack = theirs; }

}  // namespace farm::kernels
#endif
