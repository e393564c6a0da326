// Panels: a small matrix product of float32, the core of products and attention.
//
// A panel holds V vectors of output rows side by side for each k: panel[k][V * LANES]. A tile of R
// columns then needs V loads and R broadcasts for V * R multiply-adds, and V * R accumulators: V and R
// are chosen so that they fit into the registers and hide the latency of the multiply-adds.

#pragma once

#include "vectors.h"

namespace {

#if defined(__AVX2__)

// Transpose 8 rows by 16 columns of float16: vector i has column i below and column i + 8 above.
// Shuffling before widening moves half the bytes.
void transpose_halves(const half* rows, int64_t row_stride, __m256i columns[8]) {
    __m256i next[8];
    for (int i = 0; i < 8; i++) {
        columns[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + i * row_stride));
    }
    // Three perfect shuffles, each joining row i with row i + 4, bring row bits below column bits.
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            next[2 * i] = _mm256_unpacklo_epi16(columns[i], columns[i + 4]);
            next[2 * i + 1] = _mm256_unpackhi_epi16(columns[i], columns[i + 4]);
        }
        for (int i = 0; i < 8; i++) columns[i] = next[i];
    }
}

#endif

constexpr int64_t TRANSPOSED = 16;  // columns that are transposed at a time

// Write LANES rows by TRANSPOSED columns as TRANSPOSED vectors, `stride` floats apart.
void transpose_block(const half* rows, int64_t row_stride, float* out, int64_t stride) {
#if defined(__AVX512F__)
    __m256i first[8], second[8];
    transpose_halves(rows, row_stride, first);
    transpose_halves(rows + 8 * row_stride, row_stride, second);
    for (int i = 0; i < 8; i++) {
        const __m256i low = _mm256_permute2x128_si256(first[i], second[i], 0x20);
        const __m256i high = _mm256_permute2x128_si256(first[i], second[i], 0x31);
        store(out + i * stride, _mm512_cvtph_ps(low));
        store(out + (i + 8) * stride, _mm512_cvtph_ps(high));
    }
#elif defined(__AVX2__)
    __m256i columns[8];
    transpose_halves(rows, row_stride, columns);
    for (int i = 0; i < 8; i++) {
        store(out + i * stride, _mm256_cvtph_ps(_mm256_castsi256_si128(columns[i])));
        store(out + (i + 8) * stride, _mm256_cvtph_ps(_mm256_extracti128_si256(columns[i], 1)));
    }
#else
    for (int64_t k = 0; k < TRANSPOSED; k += LANES) {
        floats row[LANES];
        for (int i = 0; i < LANES; i++) row[i] = load_halves(rows + i * row_stride + k);
        for (int lane = 0; lane < LANES; lane++) {
            for (int i = 0; i < LANES; i++) out[(k + lane) * stride + i] = row[i][lane];
        }
    }
#endif
}

void transpose_block(const float* rows, int64_t row_stride, float* out, int64_t stride) {
#if defined(__AVX2__)
    for (int64_t k = 0; k < TRANSPOSED; k += 8) {
        for (int64_t first = 0; first < LANES; first += 8) {
            const float* from = rows + first * row_stride + k;
            __m256 pair[8], four[8];
            for (int i = 0; i < 8; i += 2) {
                const __m256 even = _mm256_loadu_ps(from + i * row_stride);
                const __m256 odd = _mm256_loadu_ps(from + (i + 1) * row_stride);
                pair[i] = _mm256_unpacklo_ps(even, odd);
                pair[i + 1] = _mm256_unpackhi_ps(even, odd);
            }
            for (int i = 0; i < 8; i += 4) {
                for (int j = 0; j < 2; j++) {
                    four[i + 2 * j] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], 0x44);
                    four[i + 2 * j + 1] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], 0xEE);
                }
            }
            for (int i = 0; i < 4; i++) {
                float* to = out + (k + i) * stride + first;
                _mm256_storeu_ps(to, _mm256_permute2f128_ps(four[i], four[i + 4], 0x20));
                _mm256_storeu_ps(to + 4 * stride, _mm256_permute2f128_ps(four[i], four[i + 4], 0x31));
            }
        }
    }
#else
    for (int64_t k = 0; k < TRANSPOSED; k++) {
        for (int64_t i = 0; i < LANES; i++) out[k * stride + i] = rows[i * row_stride + k];
    }
#endif
}

float widen(float x) { return x; }

// Fill a panel with the first `depth` columns of `height` rows of float16 or float32; the panel's other
// rows become zero.
template <int V, class Number>
void pack_panel(const Number* rows, int64_t row_stride, int64_t height, int64_t depth, float* panel) {
    constexpr int64_t width = V * LANES;
    for (int64_t first = 0; first < width; first += LANES) {
        const Number* from = rows + first * row_stride;
        const int64_t present = std::clamp<int64_t>(height - first, 0, LANES);
        int64_t k = 0;
        if (present == LANES) {
            for (; k + TRANSPOSED <= depth; k += TRANSPOSED) {
                transpose_block(from + k, row_stride, panel + k * width + first, width);
            }
        }
        for (; k < depth; k++) {
            for (int64_t row = 0; row < LANES; row++) {
                panel[k * width + first + row] = row < present ? widen(from[row * row_stride + k]) : 0.0f;
            }
        }
    }
}

// Rows that will be packed next: a tile asks for them while it works. For a handful of columns,
// waiting for weights took two fifths of the time.
struct Ahead {
    const char* rows;
    int64_t row_stride, count;  // the stride in bytes

    void prefetch(int64_t offset) const {
        for (int64_t i = 0; i < count; i++) __builtin_prefetch(rows + i * row_stride + offset);
    }

    Ahead take(int64_t rows_taken) {
        const Ahead taken{rows, row_stride, std::min(rows_taken, count)};
        rows += taken.count * row_stride;
        count -= taken.count;
        return taken;
    }
};

// Write (or add) the first `count` lanes.
void store_sum(float* to, int64_t count, floats value, bool accumulate) {
    if (count >= LANES) {
        store(to, accumulate ? value + load(to) : value);
    } else if (count > 0) {
        store_first(to, count, accumulate ? value + load_first(to, count) : value);
    }
}

// out[c][0..height) = (or +=) the panel times column c, for R columns.
template <int V, int R>
void multiply_tile(const float* panel, int64_t height, int64_t depth, const float* columns,
                   int64_t column_stride, float* out, int64_t out_stride, bool accumulate, Ahead ahead) {
    constexpr int64_t line = 64 / sizeof(half);
    floats sum[R][V];
    for (int c = 0; c < R; c++) {
        for (int v = 0; v < V; v++) sum[c][v] = all(0.0f);
    }
    for (int64_t begin = 0; begin < depth; begin += line) {
        ahead.prefetch(begin * static_cast<int64_t>(sizeof(half)));
        const int64_t end = std::min(depth, begin + line);
#pragma GCC unroll 4
        for (int64_t k = begin; k < end; k++) {
            floats weight[V];
            for (int v = 0; v < V; v++) weight[v] = load(panel + (k * V + v) * LANES);
#pragma GCC unroll 16
            for (int c = 0; c < R; c++) {
                const floats x = all(columns[c * column_stride + k]);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) sum[c][v] = multiply_add(weight[v], x, sum[c][v]);
            }
        }
    }
    // Unrolled: without it GCC 12 keeps the sums in memory, at half the speed.
#pragma GCC unroll 16
    for (int c = 0; c < R; c++) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            store_sum(out + c * out_stride + v * LANES, height - v * LANES, sum[c][v], accumulate);
        }
    }
}

// The panel times `count` columns, R at a time, the last ones fewer.
template <int V, int R>
void multiply_panel(const float* panel, int64_t height, int64_t depth, const float* columns,
                    int64_t column_stride, int64_t count, float* out, int64_t out_stride, bool accumulate,
                    Ahead ahead = {}) {
    const int64_t asked = count < R ? ahead.count : (ahead.count * R + count - 1) / count;
    for (; count >= R; count -= R) {
        multiply_tile<V, R>(panel, height, depth, columns, column_stride, out, out_stride, accumulate,
                            ahead.take(asked));
        columns += R * column_stride;
        out += R * out_stride;
    }
    if constexpr (R > 1) {
        if (count > 0) {
            multiply_panel<V, R - 1>(panel, height, depth, columns, column_stride, count, out, out_stride,
                                     accumulate, ahead);
        }
    }
}

}  // namespace
