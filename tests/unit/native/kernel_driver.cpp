// Reads attention problems from stdin and writes their results to stdout, until stdin ends.
// A problem is eleven int64 (batch tokens heads kv_heads width cache start causal order masked
// rounded), a float scale, then query, key, value and, when masked, the mask. Where it is rounded,
// each tensor is int8, followed by zero points and scales. FARM_TEST_THREADS sets the threads.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "attention/attention.h"
#include "kernels/isa.h"

namespace {

size_t threads() {
  const char* text = std::getenv("FARM_TEST_THREADS");
  return text ? static_cast<size_t>(std::atoi(text)) : 1;
}

void on_threads(void* context, void (*task)(void*, size_t), size_t count) {
  std::atomic<size_t> next{0};
  std::vector<std::thread> workers;
  for (size_t t = 0; t < threads(); ++t) {
    workers.emplace_back([&] {
      for (size_t i = next++; i < count; i = next++) task(context, i);
    });
  }
  for (std::thread& worker : workers) worker.join();
}

template <class T>
bool read_items(std::vector<T>& items) {
  return std::fread(items.data(), sizeof(T), items.size(), stdin) == items.size();
}

std::vector<float> floats(int64_t count) { return std::vector<float>(static_cast<size_t>(count)); }

// One tensor of `rows` rows of `width`, in either form.
struct Operand {
  std::vector<float> plain;
  std::vector<int8_t> stored;
  std::vector<int8_t> zeros;
  std::vector<float> scales;

  bool read(int64_t rows, int64_t width, bool rounded) {
    if (!rounded) {
      plain = floats(rows * width);
      return read_items(plain);
    }
    stored.resize(static_cast<size_t>(rows * width));
    zeros.resize(static_cast<size_t>(rows));
    scales = floats(rows);
    return read_items(stored) && read_items(zeros) && read_items(scales);
  }
  const float* floats_or_null() const { return stored.empty() ? plain.data() : nullptr; }
  farm::kernels::Rounded rounded() const { return {stored.data(), zeros.data(), scales.data()}; }
};

}  // namespace

int main() {
  std::fprintf(stderr, "%s\n", farm::kernels::isa_name(farm::kernels::isa()));
  std::fflush(stderr);
  std::vector<int64_t> head(11);
  std::vector<float> scale(1);
  while (read_items(head) && read_items(scale)) {
    farm::kernels::Attention p;
    p.batch = head[0];
    p.tokens = head[1];
    p.heads = head[2];
    p.kv_heads = head[3];
    p.width = head[4];
    p.cache = head[5];
    p.start = head[6];
    p.causal = head[7] != 0;
    p.order = static_cast<int>(head[8]);
    p.scale = scale[0];
    const bool rounded = head[10] != 0;
    const int64_t keys = p.batch * p.cache * p.kv_heads;
    Operand query, key, value;
    std::vector<float> mask = floats(head[9] != 0 ? p.tokens * p.cache : 0);
    std::vector<float> out = floats(p.batch * p.tokens * p.heads * p.width);
    if (!query.read(p.batch * p.tokens * p.heads, p.width, rounded) ||
        !key.read(keys, p.width, rounded) || !value.read(keys, p.width, rounded) ||
        !read_items(mask)) {
      return 1;
    }
    p.query = query.floats_or_null();
    p.key = key.floats_or_null();
    p.value = value.floats_or_null();
    p.rounded_query = query.rounded();
    p.rounded_key = key.rounded();
    p.rounded_value = value.rounded();
    p.mask = mask.empty() ? nullptr : mask.data();
    p.out = out.data();
    farm::kernels::attend(p, on_threads);
    std::fwrite(out.data(), sizeof(float), out.size(), stdout);
    std::fflush(stdout);
  }
  return 0;
}
