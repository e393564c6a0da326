// Products on AMX: float32 products made of bfloat16 tiles.
//
// A float32 is the sum of a bfloat16, of what is left of it as another, and of an error of at most
// 2^-16 of it. So w x = wh xh + wh xl + wl xh, at most 2^-15 of |w x| away: three tile products, which
// are summed in float32 (Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence
// Datatype For Higher-Precision Computations", 2019). A float16 is the sum of two bfloat16 exactly.
// Three products of tiles take a sixth of the time of one in AVX-512.
//
// What is infinite becomes NaN: the rest of infinity is none.

#pragma once

#include "panels.h"
#include "weights.h"

namespace {

constexpr int64_t TILE = 16;                    // rows or columns of a tile
constexpr int64_t TILE_DEPTH = 32;              // bfloat16 in a tile's row
constexpr int64_t TILE_WORDS = TILE * TILE_DEPTH;
constexpr int64_t SPLIT_WORDS = 2 * TILE_WORDS;  // a tile's high parts, then its low ones
constexpr int64_t TILE_ROWS = 2 * TILE;          // of out, that are computed together; columns too
constexpr int64_t AMX_COLUMN_BLOCK = 512;        // with 512 deep: 1 MiB of activations stay in L2
constexpr int64_t AMX_DEPTH_BLOCK = 512;         // a panel of 64 KiB; 256 and 384 measured the same

using bfloat = uint16_t;

// What was written before this is in memory after it. The compiler does not know that tiles and their
// configuration are read from memory: GCC 12 says so of their first eight bytes alone.
void settle_memory() { asm volatile("" ::: "memory"); }

struct alignas(64) TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};

// Tiles 0 to 3 are sums (2 * column + row), 4 and 5 activations, 6 and 7 weights. A thread keeps
// what somebody else had configured, and otherwise leaves the unit as unused as it was: then a
// change of threads need not save eight kilobytes.
class Tiles {
public:
    Tiles() {
        settle_memory();
        _tile_storeconfig(&before_);
        settle_memory();
    }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
    ~Tiles() {
        if (before_.palette != 0) {
            _tile_loadconfig(&before_);
        } else {
            _tile_release();
        }
    }

    // Compute `columns` by `rows` of out, each at most TILE_ROWS.
    void shape(int64_t columns, int64_t rows) {
        if (columns == columns_ && rows == rows_) return;
        columns_ = columns;
        rows_ = rows;
        TileConfig wanted{};
        wanted.palette = 1;
        const auto set = [&](int tile, int64_t height, int64_t bytes) {
            // A tile that is not used is left out, and may not be touched.
            wanted.rows[tile] = static_cast<uint8_t>(bytes > 0 ? height : 0);
            wanted.bytes[tile] = static_cast<uint16_t>(height > 0 ? bytes : 0);
        };
        for (int i = 0; i < 2; i++) {
            const int64_t height = std::clamp<int64_t>(columns - i * TILE, 0, TILE);
            const int64_t width = std::clamp<int64_t>(rows - i * TILE, 0, TILE);
            for (int j = 0; j < 2; j++) {
                set(2 * i + j, height, std::clamp<int64_t>(rows - j * TILE, 0, TILE) * sizeof(float));
            }
            set(4 + i, height, TILE_DEPTH * sizeof(bfloat));
            set(6 + i, TILE, width * sizeof(float));
        }
        settle_memory();
        _tile_loadconfig(&wanted);
    }

private:
    TileConfig before_{};
    int64_t columns_ = 0, rows_ = 0;
};

// Numbers k and k + 16 of a row, side by side as a pair of bfloat16: their high parts, and what is left.
// What is left of a number that was a float16 has three bits, and needs no rounding.
template <bool IS_HALF>
void split(__m512 first, __m512 second, __m512i& high, __m512i& low) {
    const __m512i half_unit = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
    const auto raised = [&](__m512 x) { return _mm512_add_epi32(_mm512_castps_si512(x), half_unit); };
    const __m512i a = _mm512_and_si512(raised(first), upper), b = _mm512_and_si512(raised(second), upper);
    const auto rest = [&](__m512 x, __m512i taken) {
        const __m512 left = _mm512_sub_ps(x, _mm512_castsi512_ps(taken));
        return IS_HALF ? _mm512_castps_si512(left) : raised(left);
    };
    high = _mm512_or_si512(_mm512_srli_epi32(a, 16), b);
    // (rest of second & upper) | (rest of first >> 16)
    low = _mm512_ternarylogic_epi32(rest(second, b), upper, _mm512_srli_epi32(rest(first, a), 16), 0xEA);
}

// Transpose 16 by 16 pairs, in place. In line, so that they stay in registers.
__attribute__((always_inline)) inline void transpose_pairs(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    }
    // r[4 g + j] has, in its lane l, column 4 l + j of rows 4 g to 4 g + 3.
    for (int j = 0; j < 4; j++) {
        const __m512i even01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88), odd01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xDD);
        const __m512i even23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88), odd23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xDD);
        t[j] = _mm512_shuffle_i32x4(even01, even23, 0x88);
        t[8 + j] = _mm512_shuffle_i32x4(even01, even23, 0xDD);
        t[4 + j] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(odd01, odd23, 0xDD);
    }
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

// Rows that are read 32 numbers at a time: [k, k + 16) and [k + 16, k + 32); zeros past the end.
template <class Read>
struct Rows {
    static constexpr bool IS_HALF = Read::IS_HALF;
    const char* data;
    int64_t stride, depth;  // the stride in bytes

    void read(int64_t row, int64_t k, __m512& first, __m512& second) const {
        const char* from = data + row * stride;
        const typename Read::Scale scale = Read::scale(from, k);
        first = Read::read(from, k, depth - k, scale);
        second = Read::read(from, k + LANES, depth - k - LANES, scale);
    }

    void prefetch(int64_t row, int64_t k) const { __builtin_prefetch(data + row * stride + Read::offset(k)); }
};

Rows<ReadFloats> rows_of_floats(const float* data, int64_t stride, int64_t depth) {
    return {reinterpret_cast<const char*>(data), ReadFloats::offset(stride), depth};
}

// Columns of activations, split: [column / 16][k / 32][high, low][16][32].
int64_t activation_words(int64_t columns, int64_t depth) {
    return (columns + TILE - 1) / TILE * ((depth + TILE_DEPTH - 1) / TILE_DEPTH) * SPLIT_WORDS;
}

// Of one block of columns: as large for long texts as for short ones.
size_t activations_size(int64_t columns, int64_t depth) {
    return activation_words(std::min(columns, AMX_COLUMN_BLOCK), depth) * sizeof(bfloat) + 64;  // to align it
}

// This thread's share of `count` columns from `first` on.
void split_activations(const ggml_compute_params* params, const Product& product, int64_t first, int64_t count,
                       bfloat* out) {
    const int64_t blocks = (product.depth + TILE_DEPTH - 1) / TILE_DEPTH;
    const auto rows = rows_of_floats(product.columns + first * product.column_stride, product.column_stride, product.depth);
    const Range columns = share(params, count);
    for (int64_t column = columns.begin; column < columns.end; column++) {
        bfloat* to = out + column / TILE * blocks * SPLIT_WORDS + column % TILE * TILE_DEPTH;
        for (int64_t block = 0; block < blocks; block++, to += SPLIT_WORDS) {
            __m512 numbers, next;
            __m512i high, low;
            rows.read(column, block * TILE_DEPTH, numbers, next);
            split<false>(numbers, next, high, low);
            _mm512_store_si512(to, high);
            _mm512_store_si512(to + TILE_WORDS, low);
        }
    }
}

// One tile of weights, split: [high, low][16 pairs of k][16 rows]. Rows from `height` on become zero.
template <class Source>
void split_weights(const Source& rows, int64_t height, int64_t k, bfloat* to) {
    __m512i high[TILE], low[TILE];
    const auto read = [&](int64_t row) __attribute__((always_inline)) {
        __m512 first, second;
        rows.read(row, k, first, second);
        split<Source::IS_HALF>(first, second, high[row], low[row]);
    };
    if (height >= TILE) {
#pragma GCC unroll 16
        for (int64_t row = 0; row < TILE; row++) read(row);
    } else {
        for (int64_t row = 0; row < TILE; row++) {
            high[row] = low[row] = _mm512_setzero_si512();
            if (row < height) read(row);
        }
    }
    transpose_pairs(high);
    for (int64_t i = 0; i < TILE; i++) _mm512_store_si512(to + i * TILE_DEPTH, high[i]);
    transpose_pairs(low);
    for (int64_t i = 0; i < TILE; i++) _mm512_store_si512(to + TILE_WORDS + i * TILE_DEPTH, low[i]);
}

// Add to the sums the products of one block of k: 1 or 2 tiles of columns, 1 or 2 of rows.
template <int COLUMNS, int ROWS>
void multiply_block(const bfloat* x, int64_t x_stride, const bfloat* w) {
    constexpr int line = TILE_DEPTH * sizeof(bfloat);
    const auto products = [] {
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (ROWS > 1) _tile_dpbf16ps(1, 4, 7);
        if constexpr (COLUMNS > 1) _tile_dpbf16ps(2, 5, 6);
        if constexpr (COLUMNS > 1 && ROWS > 1) _tile_dpbf16ps(3, 5, 7);
    };
    _tile_loadd(4, x, line);
    if constexpr (COLUMNS > 1) _tile_loadd(5, x + x_stride, line);
    _tile_loadd(6, w + TILE_WORDS, line);
    if constexpr (ROWS > 1) _tile_loadd(7, w + SPLIT_WORDS + TILE_WORDS, line);
    products();
    _tile_loadd(6, w, line);
    if constexpr (ROWS > 1) _tile_loadd(7, w + SPLIT_WORDS, line);
    products();
    _tile_loadd(4, x + TILE_WORDS, line);
    if constexpr (COLUMNS > 1) _tile_loadd(5, x + x_stride + TILE_WORDS, line);
    products();
}

// A panel: TILE_ROWS rows of weights, AMX_DEPTH_BLOCK deep at most, split when its first columns need it.
template <class Source>
struct Panel {
    Source rows;
    int64_t height, following;  // rows of this panel, and of the next one
    int64_t kept;               // blocks of k that are kept: all, or the last few where nobody comes back for more
    bfloat* words;

    bfloat* at(int64_t block) const { return words + 2 * (block % kept) * SPLIT_WORDS; }

    void pack(int64_t block) const {
        const int64_t k = block * TILE_DEPTH;
        for (int64_t row = 0; row < following; row++) rows.prefetch(height + row, k);
        for (int64_t row = 0; row < height; row += TILE) {
            const Source from{rows.data + row * rows.stride, rows.stride, rows.depth};
            split_weights(from, height - row, k, at(block) + row / TILE * SPLIT_WORDS);
        }
    }
};

// A tile that is stored after more than 120 products without a store takes 1,000 cycles longer (on the
// Xeon where this was found); one that nobody reads, every 4 blocks, takes 20 and prevents it.
template <int COLUMNS, int ROWS, class Source>
void multiply_tiles(const Panel<Source>& panel, bool pack, const bfloat* x, int64_t x_stride, int64_t blocks,
                    float* out, int64_t out_stride, bool accumulate) {
    const int64_t bytes = out_stride * static_cast<int64_t>(sizeof(float));
    float* second = out + TILE * out_stride;
    if (accumulate) {
        _tile_loadd(0, out, bytes);
        if constexpr (ROWS > 1) _tile_loadd(1, out + TILE, bytes);
        if constexpr (COLUMNS > 1) _tile_loadd(2, second, bytes);
        if constexpr (COLUMNS > 1 && ROWS > 1) _tile_loadd(3, second + TILE, bytes);
    } else {
        _tile_zero(0);
        if constexpr (ROWS > 1) _tile_zero(1);
        if constexpr (COLUMNS > 1) _tile_zero(2);
        if constexpr (COLUMNS > 1 && ROWS > 1) _tile_zero(3);
    }
    alignas(64) float unused[TILE * TILE];
    for (int64_t block = 0; block < blocks; block++) {
        if (block % 4 == 3) _tile_stored(0, unused, TILE * sizeof(float));
        if (pack) {
            panel.pack(block);
            settle_memory();
        }
        multiply_block<COLUMNS, ROWS>(x + block * SPLIT_WORDS, x_stride, panel.at(block));
    }
    _tile_stored(0, out, bytes);
    if constexpr (ROWS > 1) _tile_stored(1, out + TILE, bytes);
    if constexpr (COLUMNS > 1) _tile_stored(2, second, bytes);
    if constexpr (COLUMNS > 1 && ROWS > 1) _tile_stored(3, second + TILE, bytes);
}

template <class Source>
void multiply_panel(Tiles& tiles, const Panel<Source>& panel, const bfloat* x, int64_t x_stride, int64_t count,
                    float* out, int64_t out_stride, bool accumulate) {
    const int64_t blocks = (panel.rows.depth + TILE_DEPTH - 1) / TILE_DEPTH;
    for (int64_t column = 0; column < count; column += TILE_ROWS) {
        const int64_t columns = std::min(TILE_ROWS, count - column);
        tiles.shape(columns, panel.height);
        const auto run = columns > TILE ? (panel.height > TILE ? multiply_tiles<2, 2, Source> : multiply_tiles<2, 1, Source>)
                                        : (panel.height > TILE ? multiply_tiles<1, 2, Source> : multiply_tiles<1, 1, Source>);
        run(panel, column == 0, x + column / TILE * x_stride, x_stride, blocks, out + column * out_stride, out_stride,
            accumulate);
    }
}

// All panels of this thread for one block of columns and of k.
void multiply_rows(Tiles& tiles, const Product& product, Range rows, int64_t k, int64_t deep, const bfloat* x,
                   int64_t x_stride, int64_t count, float* out) {
    thread_local Scratch packed, widened;
    const int64_t blocks = (deep + TILE_DEPTH - 1) / TILE_DEPTH, kept = count > TILE_ROWS ? blocks : 2;
    bfloat* words = packed.take<bfloat>(blocks * 2 * SPLIT_WORDS);
    for (int64_t row = rows.begin; row < rows.end; row += TILE_ROWS) {
        const int64_t height = std::min(TILE_ROWS, rows.end - row);
        const int64_t following = std::min(TILE_ROWS, rows.end - row - height);
        const Weights from = product.weights.below(row);
        const char* data = from.data + ggml_row_size(from.type, k);
        const auto run = [&](auto source) {
            multiply_panel(tiles, Panel<decltype(source)>{source, height, following, kept, words}, x, x_stride, count,
                           out + row, product.out_stride, k > 0);
        };
        if (from.type == GGML_TYPE_F16) {
            run(Rows<ReadHalves>{data, from.stride, deep});
        } else if (from.type == GGML_TYPE_Q8_0) {
            run(Rows<ReadQ8>{data, from.stride, deep});
        } else if (from.type == GGML_TYPE_F32) {
            run(Rows<ReadFloats>{data, from.stride, deep});
        } else {
            float* numbers = widened.take<float>(height * deep);
            for (int64_t i = 0; i < height; i++) widen_row(from, i, k, deep, numbers + i * deep);
            run(rows_of_floats(numbers, deep, deep));
        }
    }
}

void multiply_by_tiles(const ggml_compute_params* params, const Product& product) {
    bfloat* activations = reinterpret_cast<bfloat*>((reinterpret_cast<uintptr_t>(params->wdata) + 63) / 64 * 64);
    const int64_t x_stride = (product.depth + TILE_DEPTH - 1) / TILE_DEPTH * SPLIT_WORDS;
    const Range panels = share(params, (product.rows + TILE_ROWS - 1) / TILE_ROWS);
    const Range rows{panels.begin * TILE_ROWS, std::min(product.rows, panels.end * TILE_ROWS)};
    Tiles tiles;
    for (int64_t column = 0; column < product.count; column += AMX_COLUMN_BLOCK) {
        const int64_t count = std::min(AMX_COLUMN_BLOCK, product.count - column);
        if (column > 0) ggml_barrier(params->threadpool);  // all threads are done with those before
        split_activations(params, product, column, count, activations);
        settle_memory();
        ggml_barrier(params->threadpool);
        for (int64_t k = 0; k < product.depth; k += AMX_DEPTH_BLOCK) {
            multiply_rows(tiles, product, rows, k, std::min(AMX_DEPTH_BLOCK, product.depth - k),
                          activations + k / TILE_DEPTH * SPLIT_WORDS, x_stride, count,
                          product.out + column * product.out_stride);
        }
    }
}

}  // namespace
