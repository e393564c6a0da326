// Products: weights of float32, float16, bfloat16 and Q8_0 times float32 activations.
//
// Activations are never rounded to float16 or to bytes, as the original does. A thread's share of the
// rows follows from its index, and ggml waits for all threads after each operation.

#pragma once

#include "panels.h"
#include "products_few.h"
#include "weights.h"

namespace {

#if defined(__AVX512F__)
constexpr int WEIGHT_VECTORS = 3, WEIGHT_COLUMNS = 8;  // 27 of 32 registers
#elif defined(__AVX2__)
constexpr int WEIGHT_VECTORS = 3, WEIGHT_COLUMNS = 4;  // 16 of 16; 2 x 6 is slower
#else
constexpr int WEIGHT_VECTORS = 4, WEIGHT_COLUMNS = 6;  // 28 of 32
#endif
constexpr int64_t DEPTH_BLOCK = 512;   // a multiple of every type's block
constexpr int64_t COLUMN_BLOCK = 256;  // 256 columns of 512 floats stay in L2 for all panels

// Fill a panel with columns [k, k + deep) of the weights' first `height` rows.
template <int V>
void pack_weights(const Weights& weights, int64_t height, int64_t k, int64_t deep, float* panel, Scratch& widened) {
    if (weights.type == GGML_TYPE_F16) {
        const half* from = reinterpret_cast<const half*>(weights.data) + k;
        return pack_panel<V>(from, weights.stride / static_cast<int64_t>(sizeof(half)), height, deep, panel);
    }
    if (weights.type == GGML_TYPE_F32) {
        const float* from = reinterpret_cast<const float*>(weights.data) + k;
        return pack_panel<V>(from, weights.stride / static_cast<int64_t>(sizeof(float)), height, deep, panel);
    }
    float* rows = widened.take<float>(height * deep);
    for (int64_t row = 0; row < height; row++) widen_row(weights, row, k, deep, rows + row * deep);
    pack_panel<V>(static_cast<const float*>(rows), deep, height, deep, panel);
}

// out[column][row] for all columns and this thread's rows. Weights are converted once for each block
// of columns, where the original converts them at every use.
void multiply_by_panels(const ggml_compute_params* params, const Product& product) {
    constexpr int64_t width = WEIGHT_VECTORS * LANES;
    thread_local Scratch packed, widened;
    float* panel = packed.take<float>(DEPTH_BLOCK * width);
    const Range panels = share(params, (product.rows + width - 1) / width);
    for (int64_t column = 0; column < product.count; column += COLUMN_BLOCK) {
        const int64_t count = std::min(COLUMN_BLOCK, product.count - column);
        for (int64_t k = 0; k < product.depth; k += DEPTH_BLOCK) {
            const int64_t deep = std::min(DEPTH_BLOCK, product.depth - k);
            for (int64_t row = panels.begin * width; row < std::min(product.rows, panels.end * width); row += width) {
                const int64_t height = std::min(width, product.rows - row);
                const Weights from = product.weights.below(row);
                pack_weights<WEIGHT_VECTORS>(from, height, k, deep, panel, widened);
                const int64_t following = std::min(width, product.rows - row - height);
                multiply_panel<WEIGHT_VECTORS, WEIGHT_COLUMNS>(
                    panel, height, deep, product.columns + column * product.column_stride + k,
                    product.column_stride, count, product.out + column * product.out_stride + row,
                    product.out_stride, k > 0,
                    Ahead{from.row(height) + ggml_row_size(from.type, k), from.stride, following});
            }
        }
    }
}

}  // namespace

#if defined(__AMX_BF16__)
#include "products_amx.h"
#endif

namespace {

// One column alone is a matter of memory, not of arithmetic: the original is as good.
constexpr int64_t COLUMNS_MIN = 2;

// The types that are ours, however few the columns: the original rounds activations to float16 or to
// bytes, and a text's vector would depend on how many tokens were computed with it. Other weights in
// few bits are left to it altogether: it computes with bytes what ours would have to make first.
bool is_our_type(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 || type == GGML_TYPE_Q8_0;
}

bool is_our_product(const ggml_tensor* out) {
    const ggml_tensor *weights = out->src[0], *columns = out->src[1];
    return weights->extra == nullptr && is_our_type(weights->type) && columns->type == GGML_TYPE_F32 &&
           out->type == GGML_TYPE_F32 && columns->ne[1] >= COLUMNS_MIN && ggml_is_contiguous(columns) &&
           weights->nb[0] == ggml_type_size(weights->type) &&
           out->op_params[1] == 0;  // no hint that the weights are of a special shape
}

// Bytes that the threads share in this operation; 0 where they share none.
size_t product_scratch(const ggml_tensor* out) {
#if defined(__AMX_BF16__)
    if (is_our_product(out)) return activations_size(out->src[1]->ne[1], out->src[1]->ne[0]);
#endif
    return 0;
}

bool product(const ggml_compute_params* params, ggml_tensor* out) {
    if (params->use_ref || !is_our_product(out)) return false;
    const ggml_tensor *w = out->src[0], *x = out->src[1];
    for (int64_t i3 = 0; i3 < x->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < x->ne[2]; i2++) {
            Product one{};
            const int64_t w2 = i2 / (x->ne[2] / w->ne[2]), w3 = i3 / (x->ne[3] / w->ne[3]);
            one.weights = {w->type, at<char>(w, w2, w3), static_cast<int64_t>(w->nb[1])};
            one.columns = at<float>(x, i2, i3);
            one.out = const_cast<float*>(at<float>(out, i2, i3));
            one.rows = w->ne[1];
            one.count = x->ne[1];
            one.depth = w->ne[0];
            one.column_stride = static_cast<int64_t>(x->nb[1] / sizeof(float));
            one.out_stride = static_cast<int64_t>(out->nb[1] / sizeof(float));
            if (are_few(one)) {
                multiply_few(params, one);
                continue;
            }
#if defined(__AMX_BF16__)
            if (i2 + i3 > 0) ggml_barrier(params->threadpool);  // nobody reads the activations before these any more
            multiply_by_tiles(params, one);
#else
            multiply_by_panels(params, one);
#endif
        }
    }
    return true;
}

}  // namespace
