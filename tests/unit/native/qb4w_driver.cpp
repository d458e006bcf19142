// Reads 4-bit products from stdin and writes their results to stdout, until stdin ends. The first
// argument names whose products: `avx2`, `avx512` or `amx`. A product is four int64 (rows columns inputs
// block), then activations, {zero point, scale} of each row and the packed weights. With the words
// `pack` and the columns of a tile, reads weights and writes them packed: five int64 (inputs outputs
// block zero-point biased), then weights, scales and biases.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <vector>

#include "tuned/qb4w.h"

namespace {

template <class T>
bool read_items(std::vector<T>& items) {
  return std::fread(items.data(), sizeof(T), items.size(), stdin) == items.size();
}

template <class T>
void write_items(const std::vector<T>& items) {
  std::fwrite(items.data(), sizeof(T), items.size(), stdout);
  std::fflush(stdout);
}

#if defined(__x86_64__)
using namespace farm::kernels;

struct Kernel {
  Qb4wGemm gemm;
  size_t columns;
};

bool multiply(const Kernel& kernel) {
  std::vector<size_t> head(4);
  if (!read_items(head)) return false;
  const auto [rows, columns, inputs, block] = std::tuple(head[0], head[1], head[2], head[3]);
  std::vector<int8_t> a(rows * inputs);
  std::vector<Qb4wRow> quantised(rows);
  std::vector<uint8_t> weights(qb4w_packed_bytes(inputs, columns, block, kernel.columns));
  std::vector<float> out(rows * columns);
  if (!read_items(a) || !read_items(quantised) || !read_items(weights)) return false;
  const Qb4wParams params{-INFINITY, INFINITY, block};
  kernel.gemm(rows, columns, inputs, a.data(), inputs, weights.data(), out.data(),
              columns * sizeof(float), kernel.columns * sizeof(float), &params, quantised.data());
  write_items(out);
  return true;
}

bool pack(size_t columns) {
  std::vector<int64_t> head(5);
  if (!read_items(head)) return false;
  const auto inputs = static_cast<size_t>(head[0]), outputs = static_cast<size_t>(head[1]);
  const auto block = static_cast<size_t>(head[2]);
  std::vector<uint8_t> values(inputs * outputs / 2);
  std::vector<uint16_t> scales(inputs / block * outputs);
  std::vector<float> bias(head[4] != 0 ? outputs : 0);
  if (!read_items(values) || !read_items(scales) || !read_items(bias)) return false;
  std::vector<uint8_t> packed(qb4w_packed_bytes(inputs, outputs, block, columns), 0xA5);
  const Qb4wWeights from{inputs,        outputs,
                                        block,         values.data(),
                                        scales.data(), head[4] != 0 ? bias.data() : nullptr,
                                        static_cast<int32_t>(head[3])};
  avx2::qb4w_pack(from, columns, packed.data());
  write_items(packed);
  return true;
}
#endif

}  // namespace

int main(int words, char** argv) {
  if (words < 2) return 2;
#if defined(__x86_64__)
  if (std::strcmp(argv[1], "pack") == 0) {
    if (words < 3) return 2;
    const size_t columns = std::strtoul(argv[2], nullptr, 10);
    while (pack(columns)) {
    }
    return 0;
  }
  Kernel kernel{avx2::qb4w_gemm, avx2::kQb4wColumns};
  if (std::strcmp(argv[1], "avx512") == 0) kernel = {avx512::qb4w_gemm, avx512::kQb4wColumns};
  if (std::strcmp(argv[1], "amx") == 0) {
    if (!amx::allow()) return 3;
    kernel = {amx::qb4w_gemm, amx::kQb4wColumns};
  }
  while (multiply(kernel)) {
  }
#else
  static_cast<void>(argv);
#endif
  return 0;
}
