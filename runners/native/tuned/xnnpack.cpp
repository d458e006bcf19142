#include "xnnpack.h"

#include "xnnpack_packing.h"

#ifdef FARM_XNNPACK_TABLE
#include <algorithm>
#include <cstring>

#include "../kernels/isa.h"

namespace farm::kernels {
namespace {

// Versions of ExecuTorch whose XNNPACK has a Table, and calls its code with the arguments of Qb4wGemm
// and Pack.
constexpr const char* kKnown[] = {"1.5.1"};

// What a table has from us: products of at most so many rows at a time, for tiles of so many columns.
struct Product {
  const char* name;
  Qb4wGemm gemm;
  size_t rows;
  size_t columns;
};

constexpr Product kSigned{"xnnpack::qd8_f32_qb4w", avx2::qb4w_gemm, avx2::kQb4wRows,
                          avx2::kQb4wColumns};
constexpr Product kUnsigned{"xnnpack::qdu8_f32_qb4w", avx512::qb4w_gemm, avx512::kQb4wRows,
                            avx512::kQb4wColumns};
constexpr Product kMatrix{"xnnpack::qdu8_f32_qb4w_amx", amx::qb4w_gemm, amx::kQb4wRows,
                          amx::kQb4wColumns};

struct Call {
  size_t rows, columns, inputs;
  const int8_t* a;
  size_t a_stride;
  const void* weights;
  float* c;
  size_t row_stride, tile_stride;
  const Qb4wParams* params;
  const Qb4wRow* quantised;

  bool known() const {
    const size_t block = params->block;
    return block > 0 && block % 32 == 0 && inputs % block == 0 && inputs <= kQb4wInputs;
  }

  void run(Qb4wGemm code, size_t most) const {
    for (size_t r = 0; r < rows; r += most) {
      auto* to = reinterpret_cast<float*>(reinterpret_cast<char*>(c) + r * row_stride);
      code(std::min(most, rows - r), columns, inputs, a + r * a_stride, a_stride, weights, to,
           row_stride, tile_stride, params, quantised + r);
    }
  }
};

Table stock;  // what the table was, for what ours don't do
Qb4wGemm ours;

// With MATRIX blocks of 32 go to the matrix unit.
template <bool ONE, bool MATRIX>
void product(size_t rows, size_t columns, size_t inputs, const int8_t* a, size_t a_stride,
             const void* weights, float* c, size_t row_stride, size_t tile_stride,
             const Qb4wParams* params, const Qb4wRow* quantised) {
  const Call call{rows,    columns,    inputs,      a,      a_stride, weights,
                  c,       row_stride, tile_stride, params, quantised};
  const size_t most = ONE ? 1 : stock.rows;
  if (!call.known()) return call.run(stock.gemm[most - 1], most);
  if (MATRIX && params->block == 32) return call.run(kMatrix.gemm, kMatrix.rows);
  call.run(ours, most);
}

// Ours for the form of the operator that XNNPACK takes here, if this CPU runs it.
const Product* product_for(const Library& library) {
  if (library.unsigned_rows) return isa() == Isa::Avx512 ? &kUnsigned : nullptr;
  return isa() == Isa::Avx512 || isa() == Isa::Avx2 ? &kSigned : nullptr;
}

// Returns the names of what was lent.
std::vector<std::string> lend(Table& table, const Product& product_here) {
  ours = product_here.gemm;
  table.gemm[0] = product<true, false>;
  table.gemm[table.rows - 1] = product<false, false>;
  if (&product_here != &kUnsigned || !amx::allow()) return {product_here.name};
  table.gemm[kMatrix.rows - 1] = product<false, true>;
  table.rows = kMatrix.rows;
  return {product_here.name, kMatrix.name};
}

constexpr Shape kTrials[] = {{96, 20, 32, 1, true, 17},   {96, 20, 32, 5, true, 18},
                             {256, 17, 64, 4, false, 19}, {384, 8, 128, 3, true, 20},
                             {64, 31, 64, 13, false, 21}, {160, 90, 32, 17, true, 22}};

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
  if (isa() == Isa::Portable || !known_version()) return {};
  Library library{};
  if (!library.load()) return {};
  const Product* here = product_for(library);
  if (here == nullptr) return {};
  Table* table = Trial(library, {32, 8, 32, 1, true, 17}).table();
  if (table == nullptr || table->rows != here->rows || table->columns != here->columns) return {};
  Results before, after;
  bool packing = false;
  if (!try_packing(library, *table, before, packing)) return {};
  stock = *table;
  std::vector<std::string> lent = lend(*table, *here);
  if (packing) {
    lend_packing(*table);
    lent.emplace_back("xnnpack::qb4w_packing");
  }
  if (run_trials(library, after) && equal(before, after)) return lent;
  *table = stock;
  return {};
}

}  // namespace farm::kernels

#else

namespace farm::kernels {
std::vector<std::string> speed_up_xnnpack() { return {}; }
}  // namespace farm::kernels

#endif
