// A program that runs a .pte its own way and reports in its own words: what a vendor's binary is
// to farm. It shares no code with farm-runner and doesn't know its protocol.
//
//   vendor_llm MODEL TOKENS_FILE PROMPT_FILE REPLY_LENGTH
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

using executorch::extension::from_blob;
using executorch::extension::module::Module;

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static std::vector<float> step(Module& module, int64_t id, int64_t position) {
  auto tokens = from_blob(&id, {1, 1}, executorch::aten::ScalarType::Long);
  auto place = from_blob(&position, {1}, executorch::aten::ScalarType::Long);
  auto out = module.forward({tokens, place});
  if (!out.ok()) {
    std::fprintf(stderr, "forward failed: %d\n", static_cast<int>(out.error()));
    std::exit(1);
  }
  const auto logits = (*out)[0].toTensor();
  const float* data = logits.const_data_ptr<float>();
  const auto width = logits.size(logits.dim() - 1);
  return std::vector<float>(data + logits.numel() - width, data + logits.numel());
}

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const double start = now();
  Module module(argv[1]);
  if (module.load_forward() != executorch::runtime::Error::Ok) return 1;
  std::printf("ready after %.6f s\n", now() - start);

  std::vector<int64_t> ids;
  std::ifstream forced(argv[2]);
  for (int64_t id; forced >> id;) ids.push_back(id);
  std::ofstream scores("scores.f32", std::ios::binary);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = step(module, ids[i], static_cast<int64_t>(i));
    scores.write(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
  }

  std::ifstream text(argv[3], std::ios::binary);
  std::vector<int64_t> prompt;
  for (char byte; text.get(byte) && prompt.size() < 64;) {
    prompt.push_back(static_cast<unsigned char>(byte));
  }
  const double before = now();
  int64_t position = 0, next = 1;
  for (const int64_t id : prompt) {
    const auto row = step(module, id, position++);
    next = static_cast<int64_t>(std::max_element(row.begin(), row.end()) - row.begin());
  }
  const double middle = now();
  const int reply = std::atoi(argv[4]);
  for (int i = 0; i < reply; ++i) {
    const auto row = step(module, next, position++);
    next = static_cast<int64_t>(std::max_element(row.begin(), row.end()) - row.begin());
  }
  const double after = now();
  std::printf("prompt of %zu: %.2f tok/s\n", prompt.size(), prompt.size() / (middle - before));
  std::printf("reply of %d: %.2f tok/s\n", reply, reply / (after - middle));
}
