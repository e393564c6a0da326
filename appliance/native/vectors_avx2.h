// AVX2: eight float32 in a vector, sixteen vectors.

#pragma once

#include <immintrin.h>

namespace {

using floats = __m256;
constexpr int LANES = 8;

floats load(const float* from) { return _mm256_loadu_ps(from); }
void store(float* to, floats x) { _mm256_storeu_ps(to, x); }
floats all(float x) { return _mm256_set1_ps(x); }

// All ones in the first `count` lanes.
__m256i first_lanes(int64_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
}

floats load_first(const float* from, int64_t count) { return _mm256_maskload_ps(from, first_lanes(count)); }
void store_first(float* to, int64_t count, floats x) { _mm256_maskstore_ps(to, first_lanes(count), x); }
floats keep_first(floats x, int64_t count, floats others) {
    return _mm256_blendv_ps(others, x, _mm256_castsi256_ps(first_lanes(count)));
}

floats load_halves(const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
void store_halves(uint16_t* to, floats x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
floats load_bytes(const int8_t* from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
float widen(uint16_t half) { return _cvtsh_ss(half); }

floats multiply_add(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }
floats nearest(floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
float total(floats x) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
float largest(floats x) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// The larger and the smaller one; where either is not a number, y.
floats larger(floats x, floats y) { return _mm256_max_ps(x, y); }
floats smaller(floats x, floats y) { return _mm256_min_ps(x, y); }
// x * 2^n, for whole n for which 2^n is a normal number.
floats scale_by_power(floats x, floats n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

}  // namespace
