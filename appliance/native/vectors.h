// Vectors: what all our kernels share. Eight float32 lanes, a thread's share of the work, tensors.

#pragma once

#include "ggml.h"

#include "ggml-cpu-impl.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <limits>

// Internal linkage: several kernels are linked into a library with thousands of names of its own.
namespace {

using half = uint16_t;  // IEEE 754 binary16, as bits

constexpr int LANES = 8;
constexpr half MINUS_INFINITY = 0xFC00;

struct Range {
    int64_t begin, end;
};

// This thread's share of `count` things.
Range share(const ggml_compute_params* params, int64_t count) {
    return {count * params->ith / params->nth, count * (params->ith + 1) / params->nth};
}

__m256 load_halves(const half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// All ones in the first `count` lanes.
__m256i first_lanes(int64_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
}

float total(__m256 lanes) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// e^x to about 1e-7 relative: 2^n times a Taylor polynomial on [-ln 2 / 2, ln 2 / 2]. Saturates
// where float32 would underflow or overflow; a NaN stays one.
__m256 exponential(__m256 x) {
    x = _mm256_min_ps(_mm256_set1_ps(88.0f), _mm256_max_ps(_mm256_set1_ps(-87.0f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // ln 2 in two parts: n times the first is nearly exact.
    const __m256 nearly = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), x);
    const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), nearly);
    __m256 p = _mm256_set1_ps(1.0f / 720);
    for (float coefficient : {1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f}) {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(coefficient));
    }
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

bool is_dense_float(const ggml_tensor* tensor) {
    return tensor->type == GGML_TYPE_F32 && ggml_is_contiguous(tensor);
}

float float_parameter(const ggml_tensor* tensor, int index) {
    float value;
    std::memcpy(&value, tensor->op_params + index, sizeof(value));
    return value;
}

template <class T>
const T* at(const ggml_tensor* tensor, int64_t i2, int64_t i3) {
    const char* data = static_cast<const char*>(tensor->data);
    return reinterpret_cast<const T*>(data + i2 * tensor->nb[2] + i3 * tensor->nb[3]);
}

}  // namespace
