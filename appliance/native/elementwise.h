// Elementwise: GELU, addition, layer norm and narrowing to float16, a vector at a time.
//
// After the matrix products these are what a BERT spends its time on. Each replaces a scalar loop
// for the one layout that our models have, and leaves all others to the original.

#pragma once

#include "vectors.h"

namespace {

// Apply `operation` to a vector of x and y at a time; the last one under a mask.
template <class Operation>
void for_each_vector(const float* x, const float* y, float* out, int64_t count, Operation operation) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        store(out + i, operation(load(x + i), load(y + i)));
    }
    if (i < count) {
        store_first(out + i, count - i, operation(load_first(x + i, count - i), load_first(y + i, count - i)));
    }
}

// x / (1 + e^-2u) is llama.cpp's 0.5 x (1 + tanh u), u = sqrt(2 / pi) (x + 0.044715 x^3).
floats gelu(floats x) {
    const floats cubic = multiply_add(x * x, all(0.044715f), all(1.0f));
    const floats u = x * cubic * all(-2.0f * 0.797884561f);
    return x / (all(1.0f) + exponential(u));
}

// Rows of src0 and of src1, which is as large or one row for all.
bool can_combine(const ggml_tensor* out) {
    const ggml_tensor *x = out->src[0], *y = out->src[1];
    return is_dense_float(x) && is_dense_float(y) && is_dense_float(out) && y->ne[0] == x->ne[0] &&
           (ggml_nrows(y) == 1 || ggml_are_same_shape(x, y));
}

template <class Operation>
void combine_rows(const ggml_compute_params* params, ggml_tensor* out, Operation operation) {
    const ggml_tensor *x = out->src[0], *y = out->src[1];
    const int64_t width = x->ne[0], y_stride = ggml_nrows(y) == 1 ? 0 : width;
    const Range rows = share(params, ggml_nrows(x));
    for (int64_t row = rows.begin; row < rows.end; row++) {
        for_each_vector(static_cast<const float*>(x->data) + row * width,
                        static_cast<const float*>(y->data) + row * y_stride,
                        static_cast<float*>(out->data) + row * width, width, operation);
    }
}

// (x - mean) / sqrt(variance + epsilon), for a width that is a multiple of LANES.
void normalize(const float* x, float* out, int64_t width, float epsilon) {
    floats sum = all(0.0f), squares = all(0.0f);
    for (int64_t i = 0; i < width; i += LANES) sum = sum + load(x + i);
    const floats mean = all(total(sum) / static_cast<float>(width));
    for (int64_t i = 0; i < width; i += LANES) {
        const floats centred = load(x + i) - mean;
        squares = multiply_add(centred, centred, squares);
    }
    const floats scale = all(1.0f / std::sqrt(total(squares) / static_cast<float>(width) + epsilon));
    for (int64_t i = 0; i < width; i += LANES) store(out + i, (load(x + i) - mean) * scale);
}

// Rows of float32, wherever they lie, to dense rows of float16 in the same order.
bool can_narrow(const ggml_tensor* out) {
    const ggml_tensor* x = out->src[0];
    return x->type == GGML_TYPE_F32 && out->type == GGML_TYPE_F16 && ggml_is_contiguous(out) &&
           ggml_are_same_shape(x, out) && x->nb[0] == sizeof(float) && x->ne[0] % LANES == 0;
}

void narrow(const ggml_compute_params* params, ggml_tensor* out) {
    const ggml_tensor* x = out->src[0];
    const int64_t width = x->ne[0];
    const Range rows = share(params, ggml_nrows(x));
    for (int64_t row = rows.begin; row < rows.end; row++) {
        const int64_t i1 = row % x->ne[1], i2 = row / x->ne[1] % x->ne[2], i3 = row / x->ne[1] / x->ne[2];
        const float* from = at<float>(x, i2, i3) + i1 * (x->nb[1] / sizeof(float));
        half* to = static_cast<half*>(out->data) + row * width;
        for (int64_t i = 0; i < width; i += LANES) store_halves(to + i, load(from + i));
    }
}

// The original looks GELU up in a table, one float16 at a time.
bool gelu(const ggml_compute_params* params, ggml_tensor* out) {
    const ggml_tensor* x = out->src[0];
    if (ggml_get_unary_op(out) != GGML_UNARY_OP_GELU || !is_dense_float(x) || !is_dense_float(out)) return false;
    const Range rows = share(params, ggml_nrows(x));
    const int64_t begin = rows.begin * x->ne[0], count = (rows.end - rows.begin) * x->ne[0];
    const float* from = static_cast<const float*>(x->data) + begin;
    for_each_vector(from, from, static_cast<float*>(out->data) + begin, count,
                    [](floats value, floats) { return gelu(value); });
    return true;
}

// Biases and residuals.
bool add(const ggml_compute_params* params, ggml_tensor* out) {
    if (!can_combine(out)) return false;
    combine_rows(params, out, [](floats a, floats b) { return a + b; });
    return true;
}

// The weights of norms.
bool multiply(const ggml_compute_params* params, ggml_tensor* out) {
    if (!can_combine(out)) return false;
    combine_rows(params, out, [](floats a, floats b) { return a * b; });
    return true;
}

// Layer norm, less its weight and bias.
bool norm(const ggml_compute_params* params, ggml_tensor* out) {
    const ggml_tensor* x = out->src[0];
    const int64_t width = x->ne[0];
    if (!is_dense_float(x) || !is_dense_float(out) || width % LANES != 0) return false;
    const Range rows = share(params, ggml_nrows(x));
    for (int64_t row = rows.begin; row < rows.end; row++) {
        normalize(static_cast<const float*>(x->data) + row * width, static_cast<float*>(out->data) + row * width,
                  width, float_parameter(out, 0));
    }
    return true;
}

// The original narrows permuted keys and values to float16 one number at a time.
bool copy(const ggml_compute_params* params, ggml_tensor* out) {
    if (!can_narrow(out)) return false;
    narrow(params, out);
    return true;
}

}  // namespace
