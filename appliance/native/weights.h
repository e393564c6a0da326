// Weights: rows of a matrix as the model file has them, made into float32 where they are used, and
// the products that they are used in.
//
// No converted copy outlives a call: it would outlive its model, and take twice its memory.

#pragma once

#include "vectors.h"

namespace {

struct Weights {
    ggml_type type;
    const char* data;
    int64_t stride;  // bytes from row to row

    Weights below(int64_t rows) const { return {type, data + rows * stride, stride}; }
    const char* row(int64_t index) const { return data + index * stride; }
};

// out[column][row] = weights[row] times columns[column], over `depth` numbers.
struct Product {
    Weights weights;
    const float* columns;
    float* out;
    int64_t rows, count, depth, column_stride, out_stride;  // strides in elements
};

// As ggml lays it out: 32 numbers in 34 bytes.
struct Q8Block {
    half scale;
    int8_t numbers[32];
};
constexpr int64_t Q8_COUNT = sizeof(Q8Block::numbers);

void widen_q8(const Q8Block* blocks, int64_t count, float* out) {
    for (int64_t block = 0; block < count; block++) {
        const floats scale = all(widen(blocks[block].scale));
        for (int64_t i = 0; i < Q8_COUNT; i += LANES) {
            store(out + block * Q8_COUNT + i, load_bytes(blocks[block].numbers + i) * scale);
        }
    }
}

// Write numbers [begin, begin + count) of a row as float32; both are multiples of the block size.
void widen_row(const Weights& weights, int64_t row, int64_t begin, int64_t count, float* out) {
    const char* from = weights.row(row) + ggml_row_size(weights.type, begin);
    switch (weights.type) {
        case GGML_TYPE_F32:
            std::memcpy(out, from, count * sizeof(float));
            break;
        case GGML_TYPE_Q8_0:
            widen_q8(reinterpret_cast<const Q8Block*>(from), count / Q8_COUNT, out);
            break;
        default:
            ggml_get_type_traits(weights.type)->to_float(from, out, count);
    }
}

}  // namespace
