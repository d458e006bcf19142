// Four lanes in the compiler's own vector type: any machine, no intrinsics.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace farm::kernels::portable {

struct Vec {
  typedef float Lanes __attribute__((vector_size(16)));
  typedef int Ints __attribute__((vector_size(16)));
  static constexpr int kLanes = 4;
  Lanes v;

  static Vec load(const float* p) {
    Vec out;
    std::memcpy(&out.v, p, sizeof out.v);
    return out;
  }
  static Vec load(const int8_t* p) {
    return {Lanes{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
                  static_cast<float>(p[3])}};
  }
  static Vec all(float x) { return {Lanes{x, x, x, x}}; }
  void store(float* p) const { std::memcpy(p, &v, sizeof v); }
};

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
inline float sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline float top(Vec a) {
  return std::fmax(std::fmax(a.v[0], a.v[1]), std::fmax(a.v[2], a.v[3]));
}
// The sums of four vectors, stored one after the other.
inline void sum4(const Vec* a, float* out) {
  for (int i = 0; i < 4; ++i) out[i] = sum(a[i]);
}

inline Vec round(Vec a) {
  // Adding and taking away 1.5 * 2^23 leaves the nearest whole number of anything below 2^22.
  const Vec::Lanes shift = {12582912.0F, 12582912.0F, 12582912.0F, 12582912.0F};
  const Vec::Lanes moved = a.v + shift;
  return {moved - shift};
}
// 2^n for whole n in the range of normal numbers.
inline Vec power_of_two(Vec n) {
  const Vec::Ints bits = (__builtin_convertvector(n.v, Vec::Ints) + 127) << 23;
  Vec out;
  std::memcpy(&out.v, &bits, sizeof bits);
  return out;
}
// Zero where x < limit, else y.
inline Vec zero_below(Vec x, float limit, Vec y) {
  const Vec::Lanes zero = {0, 0, 0, 0};
  return {x.v < limit ? zero : y.v};
}

}  // namespace farm::kernels::portable
