// Vectors: what all kernels share. A vector of float32 as wide as the instruction set that this is
// compiled for, a thread's share of the work, tensors.
//
// kernels.cpp is compiled once for each instruction set. All here has internal linkage: no function
// that was compiled for a wider one may ever stand in for its namesake.

#pragma once

#include "ggml.h"

#include "ggml-cpu-impl.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#if defined(__AVX512F__)
#include "vectors_avx512.h"
#elif defined(__AVX2__)
#include "vectors_avx2.h"
#else
#include "vectors_neon.h"
#endif

namespace {

using half = uint16_t;  // IEEE 754 binary16, as bits

constexpr half MINUS_INFINITY = 0xFC00;

struct Range {
    int64_t begin, end;
};

// This thread's share of `count` things.
Range share(const ggml_compute_params* params, int64_t count) {
    return {count * params->ith / params->nth, count * (params->ith + 1) / params->nth};
}

// Memory of one thread that grows and is kept: aligned to a cache line, its content undefined.
class Scratch {
public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { std::free(memory_); }

    template <class T>
    T* take(int64_t count) {
        const size_t wanted = (count * sizeof(T) + 63) / 64 * 64;
        if (wanted > size_) {
            std::free(memory_);
            memory_ = std::aligned_alloc(64, wanted);
            GGML_ASSERT(memory_ != nullptr);
            size_ = wanted;
        }
        return static_cast<T*>(memory_);
    }

private:
    void* memory_ = nullptr;
    size_t size_ = 0;
};

// e^x to about 1e-7 relative: 2^n times a Taylor polynomial on [-ln 2 / 2, ln 2 / 2]. Saturates
// where float32 would underflow or overflow; a NaN stays one.
floats exponential(floats x) {
    x = smaller(all(88.0f), larger(all(-87.0f), x));
    const floats n = nearest(x * all(1.44269504f));
    // ln 2 in two parts: n times the first is nearly exact.
    const floats nearly = multiply_add(n, all(-0.693145752f), x);
    const floats r = multiply_add(n, all(-1.42860677e-6f), nearly);
    floats p = all(1.0f / 720);
    for (float coefficient : {1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f}) {
        p = multiply_add(p, r, all(coefficient));
    }
    return scale_by_power(p, n);
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
