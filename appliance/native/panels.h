// Panels: a small matrix product for a float16 left operand, the core of products and attention.
//
// A panel holds V vectors of output rows side by side for each k: panel[k][V * LANES]. A tile of R
// columns then needs V loads and R broadcasts for V * R multiply-adds, and V * R accumulators. Of 16
// registers, 3 x 4 and 2 x 6 use all and hide the latency of the multiply-adds; 3 x 4 measured best.

#pragma once

#include "vectors.h"

namespace {

// Transpose 8 rows by 16 columns of float16 into 16 groups of 8 float32, `stride` floats apart.
// Shuffling before widening moves half the bytes.
void transpose_block(const half* rows, int64_t row_stride, float* out, int64_t stride) {
    __m256i a[8], b[8];
    for (int i = 0; i < 8; i++) {
        a[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + i * row_stride));
    }
    // Three perfect shuffles, each joining row i with row i + 4, bring row bits below column bits.
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            b[2 * i] = _mm256_unpacklo_epi16(a[i], a[i + 4]);
            b[2 * i + 1] = _mm256_unpackhi_epi16(a[i], a[i + 4]);
        }
        std::copy(b, b + 8, a);
    }
    for (int i = 0; i < 8; i++) {
        _mm256_storeu_ps(out + i * stride, _mm256_cvtph_ps(_mm256_castsi256_si128(a[i])));
        _mm256_storeu_ps(out + (i + 8) * stride, _mm256_cvtph_ps(_mm256_extracti128_si256(a[i], 1)));
    }
}

// Fill a panel with the first `depth` columns of `height` rows; the panel's other rows become zero.
template <int V>
void pack_panel(const half* rows, int64_t row_stride, int64_t height, int64_t depth, float* panel) {
    constexpr int64_t width = V * LANES;
    for (int64_t first = 0; first < width; first += LANES) {
        const half* from = rows + first * row_stride;
        const int64_t present = std::clamp<int64_t>(height - first, 0, LANES);
        int64_t k = 0;
        if (present == LANES) {
            for (; k + 16 <= depth; k += 16) {
                transpose_block(from + k, row_stride, panel + k * width + first, width);
            }
        }
        for (; k < depth; k++) {
            for (int64_t row = 0; row < LANES; row++) {
                panel[k * width + first + row] = row < present ? _cvtsh_ss(from[row * row_stride + k]) : 0.0f;
            }
        }
    }
}

// Rows that will be packed next: a tile asks for them while it works. For a handful of columns,
// waiting for weights took two fifths of the time.
struct Ahead {
    const half* rows;
    int64_t row_stride, count;

    void prefetch(int64_t k) const {
        for (int64_t i = 0; i < count; i++) {
            _mm_prefetch(reinterpret_cast<const char*>(rows + i * row_stride + k), _MM_HINT_T0);
        }
    }

    Ahead take(int64_t rows_taken) {
        const Ahead taken{rows, row_stride, std::min(rows_taken, count)};
        rows += taken.count * row_stride;
        count -= taken.count;
        return taken;
    }
};

// Write (or add) the first `count` lanes.
void store(float* to, int64_t count, __m256 value, bool accumulate) {
    if (count >= LANES) {
        _mm256_storeu_ps(to, accumulate ? _mm256_add_ps(value, _mm256_loadu_ps(to)) : value);
    } else {
        const __m256i mask = first_lanes(count);
        const __m256 before = accumulate ? _mm256_maskload_ps(to, mask) : _mm256_setzero_ps();
        _mm256_maskstore_ps(to, mask, _mm256_add_ps(value, before));
    }
}

// out[c][0..height) = (or +=) the panel times column c, for R columns.
template <int V, int R>
void multiply_tile(const float* panel, int64_t height, int64_t depth, const float* columns,
                   int64_t column_stride, float* out, int64_t out_stride, bool accumulate, Ahead ahead) {
    constexpr int64_t line = 64 / sizeof(half);
    __m256 sum[R][V];
    for (int c = 0; c < R; c++) {
        for (int v = 0; v < V; v++) sum[c][v] = _mm256_setzero_ps();
    }
    for (int64_t begin = 0; begin < depth; begin += line) {
        ahead.prefetch(begin);
        const int64_t end = std::min(depth, begin + line);
#pragma GCC unroll 4
        for (int64_t k = begin; k < end; k++) {
            __m256 weight[V];
            for (int v = 0; v < V; v++) weight[v] = _mm256_loadu_ps(panel + (k * V + v) * LANES);
            for (int c = 0; c < R; c++) {
                const __m256 x = _mm256_broadcast_ss(columns + c * column_stride + k);
                for (int v = 0; v < V; v++) sum[c][v] = _mm256_fmadd_ps(weight[v], x, sum[c][v]);
            }
        }
    }
    // Unrolled: without it GCC 12 keeps the sums in memory, at half the speed.
#pragma GCC unroll 8
    for (int c = 0; c < R; c++) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            store(out + c * out_stride + v * LANES, height - v * LANES, sum[c][v], accumulate);
        }
    }
}

// The panel times `count` columns, R at a time, the last ones fewer.
template <int V, int R>
void multiply_panel(const float* panel, int64_t height, int64_t depth, const float* columns,
                    int64_t column_stride, int64_t count, float* out, int64_t out_stride, bool accumulate,
                    Ahead ahead = {}) {
    const int64_t share = count < R ? ahead.count : (ahead.count * R + count - 1) / count;
    for (; count >= R; count -= R) {
        multiply_tile<V, R>(panel, height, depth, columns, column_stride, out, out_stride, accumulate,
                            ahead.take(share));
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
