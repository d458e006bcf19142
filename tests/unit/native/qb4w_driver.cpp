// Reads 4-bit products from stdin and writes their results to stdout, until stdin ends. A product is
// four int64 (rows columns inputs block), then activations, {zero point, scale} of each row and the
// packed weights. With the word `pack`, reads weights and writes them packed: five int64 (inputs
// outputs block zero-point biased), then weights, scales and biases.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <vector>

#include "kernels/isa.h"
#include "kernels/qb4w.h"

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
bool multiply() {
  std::vector<size_t> head(4);
  if (!read_items(head)) return false;
  const auto [rows, columns, inputs, block] = std::tuple(head[0], head[1], head[2], head[3]);
  std::vector<int8_t> a(rows * inputs);
  std::vector<farm::kernels::Qb4wRow> quantised(rows);
  std::vector<uint8_t> weights(farm::kernels::qb4w_packed_bytes(inputs, columns, block));
  std::vector<float> out(rows * columns);
  if (!read_items(a) || !read_items(quantised) || !read_items(weights)) return false;
  const farm::kernels::Qb4wParams params{-INFINITY, INFINITY, block};
  farm::kernels::avx2::qb4w_gemm(rows, columns, inputs, a.data(), inputs, weights.data(),
                                 out.data(), columns * sizeof(float), 8 * sizeof(float), &params,
                                 quantised.data());
  write_items(out);
  return true;
}

bool pack() {
  std::vector<int64_t> head(5);
  if (!read_items(head)) return false;
  const auto inputs = static_cast<size_t>(head[0]), outputs = static_cast<size_t>(head[1]);
  const auto block = static_cast<size_t>(head[2]);
  std::vector<uint8_t> values(inputs * outputs / 2);
  std::vector<uint16_t> scales(inputs / block * outputs);
  std::vector<float> bias(head[4] != 0 ? outputs : 0);
  if (!read_items(values) || !read_items(scales) || !read_items(bias)) return false;
  std::vector<uint8_t> packed(farm::kernels::qb4w_packed_bytes(inputs, outputs, block), 0xA5);
  const farm::kernels::Qb4wWeights from{inputs,        outputs,
                                        block,         values.data(),
                                        scales.data(), head[4] != 0 ? bias.data() : nullptr,
                                        static_cast<int32_t>(head[3])};
  farm::kernels::avx2::qb4w_pack(from, packed.data());
  write_items(packed);
  return true;
}
#endif

}  // namespace

int main(int words, char** argv) {
  std::fprintf(stderr, "%s\n", farm::kernels::isa_name(farm::kernels::isa()));
  std::fflush(stderr);
#if defined(__x86_64__)
  const auto work = words > 1 && std::strcmp(argv[1], "pack") == 0 ? pack : multiply;
  while (farm::kernels::isa() == farm::kernels::Isa::Avx2 && work()) {
  }
#endif
  return 0;
}
