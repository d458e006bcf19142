// Four lanes of NEON with fused multiply-add.
#pragma once

#include <cstdint>
#include <cstring>

#include <arm_neon.h>

namespace farm::kernels::neon {

struct Vec {
  static constexpr int kLanes = 4;
  float32x4_t v;

  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec load(const int8_t* p) {
    int32_t bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)))};
  }
  static Vec all(float x) { return {vdupq_n_f32(x)}; }
  void store(float* p) const { vst1q_f32(p, v); }
};

inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }
inline float sum(Vec a) { return vaddvq_f32(a.v); }
inline float top(Vec a) { return vmaxvq_f32(a.v); }
inline void sum4(const Vec* a, float* out) {
  vst1q_f32(out, vpaddq_f32(vpaddq_f32(a[0].v, a[1].v), vpaddq_f32(a[2].v, a[3].v)));
}
inline Vec round(Vec a) { return {vrndnq_f32(a.v)}; }
inline Vec power_of_two(Vec n) {
  const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127));
  return {vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23))};
}
inline Vec zero_below(Vec x, float limit, Vec y) {
  const uint32x4_t below = vcltq_f32(x.v, vdupq_n_f32(limit));
  return {vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y.v), below))};
}

}  // namespace farm::kernels::neon
