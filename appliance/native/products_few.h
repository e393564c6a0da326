// Few columns: rows of weights times a handful of columns, as dot products.
//
// A panel costs as much to make as several columns cost to compute. Here weights are read once, in the
// order in which they lie, and a tile of rows and columns is summed lane by lane.

#pragma once

#include "weights.h"

namespace {

#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int FEW_ROWS = 4, FEW_COLUMNS = 6;  // 24 sums, 4 rows and a column: 29 of 32 registers
#else
constexpr int FEW_ROWS = 3, FEW_COLUMNS = 4;  // 12 sums, 3 rows and a column: 16 of 16
#endif

template <class Read, int R, int C>
void dot_tile(const Weights& weights, int64_t depth, const float* columns, int64_t column_stride, float* out,
              int64_t out_stride) {
    floats sum[R][C];
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < C; c++) sum[r][c] = all(0.0f);
    }
    for (int64_t begin = 0; begin < depth; begin += Read::STEP) {
        typename Read::Scale scale[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) scale[r] = Read::scale(weights.row(r), begin);
#pragma GCC unroll 8
        for (int64_t k = begin; k < begin + Read::STEP; k += LANES) {
            floats row[R];
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) row[r] = Read::read(weights.row(r), k, depth - k, scale[r]);
#pragma GCC unroll 6
            for (int c = 0; c < C; c++) {
                const char* column = reinterpret_cast<const char*>(columns + c * column_stride);
                const floats x = ReadFloats::read(column, k, depth - k, {});
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) sum[r][c] = multiply_add(row[r], x, sum[r][c]);
            }
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) out[c * out_stride + r] = total(sum[r][c]);
    }
}

// R rows times all columns, C at a time, the last ones fewer.
template <class Read, int R, int C>
void dot_rows(const Product& product, int64_t row, int64_t column) {
    for (; product.count - column >= C; column += C) {
        dot_tile<Read, R, C>(product.weights.below(row), product.depth, product.columns + column * product.column_stride,
                             product.column_stride, product.out + column * product.out_stride + row, product.out_stride);
    }
    if constexpr (C > 1) {
        if (column < product.count) dot_rows<Read, R, C - 1>(product, row, column);
    }
}

template <class Read>
void multiply_few(const ggml_compute_params* params, const Product& product) {
    const Range rows = share(params, product.rows);
    int64_t row = rows.begin;
    for (; row + FEW_ROWS <= rows.end; row += FEW_ROWS) dot_rows<Read, FEW_ROWS, FEW_COLUMNS>(product, row, 0);
    for (; row < rows.end; row++) dot_rows<Read, 1, FEW_COLUMNS>(product, row, 0);
}

// Whether these are so few columns that dot products are sooner: measured for each instruction set.
bool are_few(const Product& product) {
#if defined(__AMX_BF16__)
    constexpr int64_t most = 8;
#else
    constexpr int64_t most = 12;
#endif
    const ggml_type type = product.weights.type;
    return product.count <= most && (type == GGML_TYPE_F16 || type == GGML_TYPE_F32 || type == GGML_TYPE_Q8_0);
}

void multiply_few(const ggml_compute_params* params, const Product& product) {
    switch (product.weights.type) {
        case GGML_TYPE_F16: return multiply_few<ReadHalves>(params, product);
        case GGML_TYPE_Q8_0: return multiply_few<ReadQ8>(params, product);
        default: return multiply_few<ReadFloats>(params, product);
    }
}

}  // namespace
