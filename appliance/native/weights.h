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

// How LANES numbers of a row are read as float32, from a multiple of LANES on: `left` of them are there,
// the others are zero. STEP numbers have one scale; number k lies at `offset(k)` bytes.
struct ReadFloats {
    static constexpr bool IS_HALF = false;
    static constexpr int64_t STEP = LANES;
    struct Scale {};
    static int64_t offset(int64_t k) { return k * static_cast<int64_t>(sizeof(float)); }
    static Scale scale(const char*, int64_t) { return {}; }
    static floats read(const char* row, int64_t k, int64_t left, Scale) {
        const float* from = reinterpret_cast<const float*>(row) + k;
        if (left >= LANES) return load(from);
        return left > 0 ? load_first(from, left) : all(0.0f);
    }
};

struct ReadHalves {
    static constexpr bool IS_HALF = true;
    static constexpr int64_t STEP = LANES;
    struct Scale {};
    static int64_t offset(int64_t k) { return k * static_cast<int64_t>(sizeof(half)); }
    static Scale scale(const char*, int64_t) { return {}; }
    static floats read(const char* row, int64_t k, int64_t left, Scale) {
        const half* from = reinterpret_cast<const half*>(row) + k;
        if (left >= LANES) return load_halves(from);
        half last[LANES] = {};
        if (left > 0) std::memcpy(last, from, left * sizeof(half));
        return load_halves(last);
    }
};

struct ReadQ8 {
    static constexpr bool IS_HALF = false;
    static constexpr int64_t STEP = Q8_COUNT;
    using Scale = floats;
    static int64_t offset(int64_t k) { return k / Q8_COUNT * static_cast<int64_t>(sizeof(Q8Block)); }
    static const Q8Block& block(const char* row, int64_t k) {
        return reinterpret_cast<const Q8Block*>(row)[k / Q8_COUNT];
    }
    static Scale scale(const char* row, int64_t k) { return all(widen(block(row, k).scale)); }
    static floats read(const char* row, int64_t k, int64_t, Scale scale) {
        return load_bytes(block(row, k).numbers + k % Q8_COUNT) * scale;
    }
};

// Write numbers [begin, begin + count) of a row as float32; both are multiples of the block size.
void widen_row(const Weights& weights, int64_t row, int64_t begin, int64_t count, float* out) {
    const char* from = weights.row(row) + ggml_row_size(weights.type, begin);
    if (weights.type != GGML_TYPE_Q8_0) {
        return ggml_get_type_traits(weights.type)->to_float(from, out, count);
    }
    for (int64_t k = 0; k < count; k += ReadQ8::STEP) {
        const floats scale = ReadQ8::scale(from, k);
        for (int64_t i = k; i < k + ReadQ8::STEP; i += LANES) store(out + i, ReadQ8::read(from, i, count - i, scale));
    }
}

}  // namespace
