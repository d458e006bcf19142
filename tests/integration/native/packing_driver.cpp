// Has XNNPACK pack weights of made-up numbers, and ours the same ones. Reads shapes from stdin
// (inputs outputs block biased seed); prints for each how many packings were compared and how many
// of them differed.
#include <cstdio>

#include "tuned/xnnpack_packing.h"

int main() {
#ifdef FARM_XNNPACK_TABLE
  using namespace farm::kernels;
  Library library{};
  if (!library.load()) return 3;
  Table* table = Trial(library, {32, 8, 32, 1, true, 1}).table();
  if (table == nullptr || !packs_as_known(*table)) return 4;
  Shape shape{};
  unsigned biased = 0;
  unsigned long seed = 0;
  shape.rows = 1;
  while (std::scanf("%zu %zu %zu %u %lu", &shape.inputs, &shape.outputs, &shape.block, &biased,
                    &seed) == 5) {
    shape.bias = biased != 0;
    shape.seed = seed;
    compare_packing(*table);
    if (!Trial(library, shape).created()) return 5;
    return_packing(*table);
    const PackingProof proof = packing_proof();
    std::printf("%zu %zu\n", proof.compared, proof.unequal);
  }
  return 0;
#else
  return 6;
#endif
}
