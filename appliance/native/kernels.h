// Kernels: what kernels.cpp gives for one instruction set.

#pragma once

#include "ggml.h"

#include <cstddef>
#include <cstdint>

struct ggml_compute_params;

struct Kernels {
    // Compute this thread's share of an operation, or return false and leave it untouched.
    bool (*compute)(const ggml_compute_params* params, ggml_tensor* out);
    // Bytes of work memory that all threads of an operation share.
    size_t (*scratch)(const ggml_tensor* out);
    // Compute multiply-adds of registers, so many `steps` of them; return how many floating-point
    // operations of a product of float32 that was. No product can be faster.
    int64_t (*peak)(int64_t steps);
};
