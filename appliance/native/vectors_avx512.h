// AVX-512: sixteen float32 in a vector, thirty-two vectors.

#pragma once

#include <immintrin.h>

namespace {

using floats = __m512;
constexpr int LANES = 16;

floats load(const float* from) { return _mm512_loadu_ps(from); }
void store(float* to, floats x) { _mm512_storeu_ps(to, x); }
floats all(float x) { return _mm512_set1_ps(x); }

__mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>(_bzhi_u32(0xFFFF, static_cast<unsigned>(count))); }

floats load_first(const float* from, int64_t count) { return _mm512_maskz_loadu_ps(first_lanes(count), from); }
void store_first(float* to, int64_t count, floats x) { _mm512_mask_storeu_ps(to, first_lanes(count), x); }
floats keep_first(floats x, int64_t count, floats others) {
    return _mm512_mask_blend_ps(first_lanes(count), others, x);
}

floats load_halves(const uint16_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
void store_halves(uint16_t* to, floats x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
floats load_bytes(const int8_t* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
float widen(uint16_t half) { return _cvtsh_ss(half); }

floats multiply_add(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
floats nearest(floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
float total(floats x) { return _mm512_reduce_add_ps(x); }
float largest(floats x) { return _mm512_reduce_max_ps(x); }
// The larger and the smaller one; where either is not a number, y.
floats larger(floats x, floats y) { return _mm512_max_ps(x, y); }
floats smaller(floats x, floats y) { return _mm512_min_ps(x, y); }
// x * 2^n, for whole n for which 2^n is a normal number.
floats scale_by_power(floats x, floats n) { return _mm512_scalef_ps(x, n); }

}  // namespace
