#include "xnnpack.h"

#include "xnnpack_packing.h"

#ifdef FARM_XNNPACK_TABLE
#include <cstring>

#include "isa.h"

namespace farm::kernels {
namespace {

// Versions of ExecuTorch whose XNNPACK has a Table, and calls its code with the arguments of Qb4wGemm
// and Pack.
constexpr const char* kKnown[] = {"1.5.1"};

Qb4wGemm own[kQb4wRows];  // XNNPACK's own products, for what ours don't do

template <size_t ROWS>
void product(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
             const void* weights, float* c, size_t row_stride, size_t tile_stride,
             const Qb4wParams* params, const Qb4wRow* quantised) {
  const bool known = params->block > 0 && params->block % 32 == 0 &&
                     inputs % params->block == 0 && inputs <= kQb4wInputs;
  const Qb4wGemm run = known ? avx2::qb4w_gemm : own[ROWS - 1];
  run(rows, columns, inputs, a, a_stride, weights, c, row_stride, tile_stride, params, quantised);
}

constexpr Shape kTrials[] = {{96, 20, 32, 1, true, 17},
                             {96, 20, 32, 5, true, 18},
                             {256, 17, 64, 4, false, 19},
                             {384, 8, 128, 3, true, 20},
                             {64, 31, 64, 2, false, 21}};

using Results = std::vector<std::vector<float>>;

bool run_trials(const Library& library, Results& results) {
  for (const Shape& shape : kTrials) {
    if (!Trial(library, shape).run(results.emplace_back())) return false;
  }
  return true;
}

bool equal(const Results& a, const Results& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  }
  return a.size() == b.size();
}

bool known_version() {
  for (const char* version : kKnown) {
    if (std::strcmp(version, FARM_EXECUTORCH_VERSION) == 0) return true;
  }
  return false;
}

// Products with XNNPACK's code alone; whether our packing gave its bytes meanwhile.
bool try_packing(const Library& library, Table& table, Results& theirs, bool& proven) {
  const bool known = packs_as_known(table);
  if (known) compare_packing(table);
  const bool ran = run_trials(library, theirs);
  if (known) return_packing(table);
  const PackingProof proof = known ? packing_proof() : PackingProof{};
  proven = ran && proof.unequal == 0 && proof.compared == std::size(kTrials);
  return ran;
}

}  // namespace

std::vector<std::string> speed_up_xnnpack() {
  const char* wish = std::getenv("FARM_XNNPACK");
  if ((wish && std::strcmp(wish, "stock") == 0) || isa() != Isa::Avx2 || !known_version()) {
    return {};
  }
  Library library{};
  if (!library.load()) return {};
  Table* table = Trial(library, {32, 8, 32, 1, true, 17}).table();
  Results theirs, ours;
  bool packing = false;
  if (table == nullptr || !try_packing(library, *table, theirs, packing)) return {};
  std::memcpy(own, table->gemm, sizeof own);
  table->gemm[0] = product<1>;
  table->gemm[2] = product<3>;
  if (packing) lend_packing(*table);
  if (run_trials(library, ours) && equal(theirs, ours)) {
    return packing ? std::vector<std::string>{"xnnpack::qd8_f32_qb4w", "xnnpack::qb4w_packing"}
                   : std::vector<std::string>{"xnnpack::qd8_f32_qb4w"};
  }
  std::memcpy(table->gemm, own, sizeof own);
  if (packing) return_packing(*table);
  return {};
}

}  // namespace farm::kernels

#else

namespace farm::kernels {
std::vector<std::string> speed_up_xnnpack() { return {}; }
}  // namespace farm::kernels

#endif
