// SHA-256 with the machine's own instructions (SHA-NI, ARMv8 crypto) where it has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace farm {

class Sha256 {
 public:
  Sha256();
  void update(const void* data, size_t size);
  // Lowercase hex. The object must not be used afterwards.
  std::string hex();

  // "sha-ni", "armv8" or "scalar": chosen once per process; FARM_SHA=scalar forces the last.
  static const char* implementation();

 private:
  std::array<uint32_t, 8> state_;
  std::array<unsigned char, 64> pending_;
  size_t filled_ = 0;
  uint64_t total_ = 0;
};

}  // namespace farm
