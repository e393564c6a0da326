// NEON: four float32 in a vector, thirty-two vectors (AArch64, where it is always there).

#pragma once

#include <arm_neon.h>

namespace {

using floats = float32x4_t;
constexpr int LANES = 4;

floats load(const float* from) { return vld1q_f32(from); }
void store(float* to, floats x) { vst1q_f32(to, x); }
floats all(float x) { return vdupq_n_f32(x); }

floats load_first(const float* from, int64_t count) {
    float lanes[LANES] = {};
    std::memcpy(lanes, from, std::min<int64_t>(count, LANES) * sizeof(float));
    return vld1q_f32(lanes);
}
void store_first(float* to, int64_t count, floats x) {
    float lanes[LANES];
    vst1q_f32(lanes, x);
    std::memcpy(to, lanes, std::min<int64_t>(count, LANES) * sizeof(float));
}
floats keep_first(floats x, int64_t count, floats others) {
    const int32_t lanes[LANES] = {0, 1, 2, 3};
    return vbslq_f32(vcltq_s32(vld1q_s32(lanes), vdupq_n_s32(static_cast<int>(count))), x, others);
}

floats load_halves(const uint16_t* from) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))); }
void store_halves(uint16_t* to, floats x) { vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
floats load_bytes(const int8_t* from) {
    int32_t four;
    std::memcpy(&four, from, sizeof(four));
    const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
float widen(uint16_t half) {
    __fp16 value;
    std::memcpy(&value, &half, sizeof(value));
    return value;
}

floats multiply_add(floats a, floats b, floats c) { return vfmaq_f32(c, a, b); }
floats nearest(floats x) { return vrndnq_f32(x); }
float total(floats x) { return vaddvq_f32(x); }
float largest(floats x) { return vmaxvq_f32(x); }
// The larger and the smaller one; where either is not a number, y.
floats larger(floats x, floats y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
floats smaller(floats x, floats y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
// x * 2^n, for whole n for which 2^n is a normal number.
floats scale_by_power(floats x, floats n) {
    const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}

}  // namespace
