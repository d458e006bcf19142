#include "xnnpack_operator.h"

#ifdef FARM_XNNPACK_TABLE
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>

#include <cmath>

namespace farm::kernels {
namespace {

constexpr uint8_t kOffset = 8;

template <class T>
bool find(const char* name, T& out) {
  out = reinterpret_cast<T>(dlsym(RTLD_DEFAULT, name));
  return out != nullptr;
}

// Whether an address is in a part of XNNPACK's library with these access rights.
bool inside(const void* address, const void* library, uint32_t flags) {
  struct Question {
    uintptr_t address;
    uintptr_t base;
    uint32_t flags;
  } question{reinterpret_cast<uintptr_t>(address), reinterpret_cast<uintptr_t>(library), flags};
  const auto visit = [](dl_phdr_info* info, size_t, void* data) {
    const auto& q = *static_cast<Question*>(data);
    if (info->dlpi_addr != q.base) return 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& part = info->dlpi_phdr[i];
      const uintptr_t from = info->dlpi_addr + part.p_vaddr;
      if (part.p_type == PT_LOAD && (part.p_flags & q.flags) == q.flags && q.address >= from &&
          q.address < from + part.p_memsz) {
        return 1;
      }
    }
    return 0;
  };
  return dl_iterate_phdr(visit, &question) == 1;
}

// Whether an address is code of the library that another one lies in.
template <class F>
bool code_beside(F function, const void* neighbour) {
  Dl_info home;
  return dladdr(neighbour, &home) != 0 &&
         inside(reinterpret_cast<void*>(function), home.dli_fbase, PF_R | PF_X);
}

// Whether a table has code of this library for one row and for most rows, and for none between.
bool describes(const Table& table, const void* library) {
  const size_t most = table.rows;
  if (most < 2 || most > kMostRows) return false;
  for (size_t rows = 1; rows <= kMostRows; ++rows) {
    const Qb4wGemm code = table.gemm[rows - 1];
    const bool there = rows == 1 || rows == most;
    if (there ? !code_beside(code, library) : code != nullptr) return false;
  }
  return true;
}

}  // namespace

bool Library::load() {
  if (!find("xnn_initialize", initialize) || !find("xnn_run_operator", run) ||
      !find("xnn_delete_operator", remove) || initialize(nullptr) != 0) {
    return false;
  }
  unsigned_rows = find("xnn_create_fully_connected_nc_qdu8_f32_qb4w", create) &&
                  find("xnn_reshape_fully_connected_nc_qdu8_f32_qb4w", reshape) &&
                  find("xnn_setup_fully_connected_nc_qdu8_f32_qb4w", setup) &&
                  Trial(*this, {32, 8, 32, 1, false, 1}).created();
  return unsigned_rows || (find("xnn_create_fully_connected_nc_qd8_f32_qb4w", create) &&
                           find("xnn_reshape_fully_connected_nc_qd8_f32_qb4w", reshape) &&
                           find("xnn_setup_fully_connected_nc_qd8_f32_qb4w", setup));
}

Trial::Trial(const Library& library, const Shape& shape)
    : library_(library), shape_(shape), state_(shape.seed) {
  std::vector<uint8_t> kernel(shape.inputs * shape.outputs / 2);
  std::vector<uint16_t> scales(shape.inputs / shape.block * shape.outputs);
  std::vector<float> bias(shape.outputs);
  for (auto& byte : kernel) byte = static_cast<uint8_t>(draw());
  for (auto& scale : scales) scale = static_cast<uint16_t>(0x3B00 + draw() % 512);
  for (auto& value : bias) value = static_cast<float>(draw() % 100);
  created_ = library.create(shape.inputs, shape.outputs, shape.inputs, shape.outputs, shape.block,
                            kOffset, scales.data(), kernel.data(),
                            shape.bias ? bias.data() : nullptr, -INFINITY, INFINITY, 0, nullptr,
                            &op_) == 0;
}

Trial::~Trial() {
  if (created_) library_.remove(op_);
}

bool Trial::run(std::vector<float>& out) {
  // XNNPACK reads a little past the last row, and wants its numbers repeated there.
  std::vector<int8_t> a(shape_.rows * shape_.inputs + 64);
  std::vector<Qb4wRow> quantised(shape_.rows);
  for (auto& value : a) value = static_cast<int8_t>(draw());
  for (auto& row : quantised) {
    row = {static_cast<int32_t>(draw() % 256) - 128, static_cast<float>(draw() % 64) / 512.0F};
  }
  quantised.resize(shape_.rows + 16, quantised.back());
  out.assign(shape_.rows * shape_.outputs, NAN);
  size_t bytes = 0;
  if (!created_ || library_.reshape(op_, shape_.rows, &bytes, nullptr) != 0) return false;
  std::vector<std::max_align_t> workspace(bytes / sizeof(std::max_align_t) + 1);
  return library_.setup(op_, a.data(), out.data(), workspace.data(), quantised.data()) == 0 &&
         library_.run(op_, nullptr) == 0;
}

Table* Trial::table() const {
  Dl_info home;
  if (!created_ || dladdr(reinterpret_cast<void*>(library_.create), &home) == 0) return nullptr;
  const size_t words = malloc_usable_size(op_) / sizeof(void*);
  for (size_t i = 0; i < words; ++i) {
    void* word = static_cast<void**>(op_)[i];
    auto* found = static_cast<Table*>(word);
    if (!inside(found, home.dli_fbase, PF_R | PF_W) ||
        !inside(static_cast<char*>(word) + sizeof(Table) - 1, home.dli_fbase, PF_R | PF_W)) {
      continue;
    }
    if (describes(*found, home.dli_fbase)) return found;
  }
  return nullptr;
}

uint32_t Trial::draw() {
  state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
  return static_cast<uint32_t>(state_ >> 40);
}

bool packs_as_known(const Table& table) {
  return code_beside(table.pack, &table) && code_beside(table.packed_stride, &table) &&
         (table.columns == 8 || table.columns == 16) && table.log2_inputs == 3 && table.log2_shuffle == 0 &&
         table.planes == 2;
}

}  // namespace farm::kernels
#endif
