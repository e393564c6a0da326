// Peak: what this instruction set's arithmetic can do, the bound that no product can pass.

#pragma once

#include "products.h"

namespace {

#if defined(__AMX_BF16__)

int64_t peak(int64_t steps) {
    constexpr int64_t products = 4, of_one = 3;  // as many as are summed at a time; of one float32 product
    alignas(64) bfloat numbers[TILE_WORDS];
    for (bfloat& number : numbers) number = 0x3F80;  // 1.0; zeros take less power, and more clock
    Tiles tiles;
    tiles.shape(TILE_ROWS, TILE_ROWS);
    settle_memory();
    _tile_loadd(4, numbers, TILE_DEPTH * sizeof(bfloat));
    _tile_loadd(5, numbers, TILE_DEPTH * sizeof(bfloat));
    _tile_loadd(6, numbers, TILE_DEPTH * sizeof(bfloat));
    _tile_loadd(7, numbers, TILE_DEPTH * sizeof(bfloat));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < steps; step++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    return steps * products * 2 * TILE * TILE * TILE_DEPTH / of_one;
}

#else

int64_t peak(int64_t steps) {
    constexpr int CHAINS = 12;  // enough to hide the latency of two units
    floats sum[CHAINS];
    for (int i = 0; i < CHAINS; i++) sum[i] = all(static_cast<float>(i));
    const floats x = all(1.0001f), y = all(0.9999f);
    for (int64_t step = 0; step < steps; step++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) sum[i] = multiply_add(x, y, sum[i]);
    }
    float lanes[LANES];
    for (int i = 1; i < CHAINS; i++) sum[0] = sum[0] + sum[i];
    store(lanes, sum[0]);
    // Always true, and unknown to the compiler, which would leave the sums out.
    return lanes[0] == lanes[0] ? steps * CHAINS * LANES * 2 : 0;
}

#endif

}  // namespace
