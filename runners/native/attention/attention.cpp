#include "attention.h"

#include <cmath>
#include <cstring>

#include "../kernels/isa.h"
#include "attention_units.h"

namespace farm::kernels {
namespace {

// Below this many multiply-adds a second thread costs more than it brings.
constexpr int64_t kSerialWork = 1 << 15;

UnitFunction unit_function() {
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::Avx512:  // sums across more lanes cost more than the lanes bring
    case Isa::Avx2: return avx2::attention_unit;
#elif defined(__aarch64__)
    case Isa::Neon: return neon::attention_unit;
#endif
    default: return portable::attention_unit;
  }
}

// Memory of a thread that grows to the largest problem and is kept.
float* scratch(std::vector<float>& memory, int64_t floats) {
  if (memory.size() < static_cast<size_t>(floats)) memory.resize(static_cast<size_t>(floats));
  return memory.data();
}

struct Job {
  const Attention& p;
  const Cut& c;
  UnitFunction unit;
  float* partials;  // one Partial per unit when the keys are split, else null

  int64_t partial_floats() const { return c.rows() * (p.width + 2); }

  UnitPlace place(int64_t i) const {
    const int64_t split = i % c.splits;
    const int64_t rest = i / c.splits;
    const int64_t kv_head = rest % p.kv_heads;
    const int64_t batch = rest / p.kv_heads % p.batch;
    // The last tokens see most keys: begun first, they leave no thread waiting at the end.
    const int64_t block = c.token_blocks - 1 - rest / p.kv_heads / p.batch;
    const int64_t first_token = block * c.block_tokens;
    const int64_t first_key = split * c.split_keys;
    return {&p,          &c,          batch,
            kv_head,     first_token, std::min(c.block_tokens, p.tokens - first_token),
            first_key,   std::min(first_key + c.split_keys, c.keys)};
  }

  Partial partial(float* memory) const {
    return {memory, memory + c.rows(), memory + 2 * c.rows()};
  }

  float* row_of(const UnitPlace& place, int64_t r) const {
    const int64_t token = place.first_token + r / c.group;
    const int64_t head = place.kv_head * c.group + r % c.group;
    return p.out + ((place.batch * p.tokens + token) * p.heads + head) * p.width;
  }

  void run(int64_t i) const {
    static thread_local std::vector<float> memory;
    const int64_t own = partials ? 0 : partial_floats();
    const int64_t work = c.scratch_floats(p);
    float* floats = scratch(memory, work + own);
    const Partial out = partial(partials ? partials + i * partial_floats() : floats + work);
    const UnitPlace at = place(i);
    unit(at, out, floats);
    if (partials) return;
    for (int64_t r = 0; r < at.tokens * c.group; ++r) {
      const float inverse = out.sum[r] > 0 ? 1.0F / out.sum[r] : 0.0F;
      float* to = row_of(at, r);
      for (int64_t d = 0; d < p.width; ++d) to[d] = out.values[r * p.width + d] * inverse;
    }
  }

  // Joins the splits of one group of rows; `i` is the unit of its first split.
  void join(int64_t i) const {
    const UnitPlace at = place(i);
    for (int64_t r = 0; r < at.tokens * c.group; ++r) {
      float top = -INFINITY;
      for (int64_t s = 0; s < c.splits; ++s) {
        top = std::fmax(top, partial(partials + (i + s) * partial_floats()).top[r]);
      }
      float* to = row_of(at, r);
      std::memset(to, 0, static_cast<size_t>(p.width) * sizeof(float));
      if (top == -INFINITY) continue;
      float sum = 0;
      for (int64_t j = 0; j < c.splits; ++j) {
        const int64_t s = visit(j, c.splits, p.order);
        const Partial part = partial(partials + (i + s) * partial_floats());
        if (part.top[r] == -INFINITY) continue;
        const float factor = std::exp(part.top[r] - top);
        sum += factor * part.sum[r];
        for (int64_t d = 0; d < p.width; ++d) to[d] += factor * part.values[r * p.width + d];
      }
      for (int64_t d = 0; d < p.width; ++d) to[d] /= sum;
    }
  }
};

void run_task(void* context, size_t i) {
  static_cast<const Job*>(context)->run(static_cast<int64_t>(i));
}

}  // namespace

void attend(const Attention& problem, Parallel parallel) {
  if (problem.tokens == 0 || problem.width == 0) return;
  static thread_local std::vector<float> memory;
  const Cut c = cut(problem);
  Job job{problem, c, unit_function(), nullptr};
  const int64_t units = c.units(problem);
  if (c.splits > 1) job.partials = scratch(memory, units * job.partial_floats());
  const int64_t work = problem.tokens * c.keys * problem.heads * problem.width;
  if (work < kSerialWork || units == 1) {
    for (int64_t i = 0; i < units; ++i) job.run(i);
  } else {
    parallel(&job, run_task, static_cast<size_t>(units));
  }
  if (c.splits > 1) {
    for (int64_t i = 0; i < units; i += c.splits) job.join(i);
  }
}

}  // namespace farm::kernels
