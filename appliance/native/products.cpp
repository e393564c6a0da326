// Products: float16 weights times float32 activations.
//
// ggml offers each matrix product to llamafile_sgemm twice, first with the activations as they are.
// This takes that first offer where the original refuses it, so activations are never rounded to
// float16. No converted weights are kept between calls: such a cache would outlive its model. No
// barrier is needed: a thread's share follows from its index, and ggml waits for all threads after
// each operation.

#include "panels.h"

#include "llamafile/sgemm.h"

namespace {

constexpr int WEIGHT_VECTORS = 3, WEIGHT_COLUMNS = 4;
constexpr int64_t DEPTH_BLOCK = 384;   // a panel is 36 KiB: measured better than fitting into L1
constexpr int64_t COLUMN_BLOCK = 256;  // 256 columns of 384 floats stay in L2 for all panels
constexpr int64_t COLUMNS_MIN = 2;

// out[column][row] for all columns and this thread's rows. Weights are converted once for each block
// of columns, where the original converts them at every use.
void multiply(const ggml_compute_params* params, int64_t rows, int64_t columns, int64_t depth,
              const half* weights, int64_t weight_stride, const float* activations,
              int64_t activation_stride, float* out, int64_t out_stride) {
    constexpr int64_t width = WEIGHT_VECTORS * LANES;
    alignas(64) float panel[DEPTH_BLOCK * width];
    const Range panels = share(params, (rows + width - 1) / width);
    for (int64_t column = 0; column < columns; column += COLUMN_BLOCK) {
        const int64_t count = std::min(COLUMN_BLOCK, columns - column);
        for (int64_t k = 0; k < depth; k += DEPTH_BLOCK) {
            const int64_t deep = std::min(DEPTH_BLOCK, depth - k);
            for (int64_t row = panels.begin * width; row < std::min(rows, panels.end * width); row += width) {
                const int64_t height = std::min(width, rows - row);
                const half* from = weights + row * weight_stride + k;
                pack_panel<WEIGHT_VECTORS>(from, weight_stride, height, deep, panel);
                const int64_t following = std::min(width, rows - row - height);
                multiply_panel<WEIGHT_VECTORS, WEIGHT_COLUMNS>(
                    panel, height, deep, activations + column * activation_stride + k, activation_stride, count,
                    out + column * out_stride + row, out_stride, k > 0,
                    Ahead{from + width * weight_stride, weight_stride, following});
            }
        }
    }
}

}  // namespace

extern "C" {

// Taking the type from the original: should upstream change a signature, this does not compile.
decltype(llamafile_sgemm) __real_llamafile_sgemm, __wrap_llamafile_sgemm;

// One column alone is a matter of memory, not of arithmetic: the original is as good.
bool __wrap_llamafile_sgemm(const ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* A,
                            int64_t lda, const void* B, int64_t ldb, void* C, int64_t ldc, int Atype, int Btype,
                            int Ctype) {
    if (Atype != GGML_TYPE_F16 || Btype != GGML_TYPE_F32 || Ctype != GGML_TYPE_F32 || n < COLUMNS_MIN) {
        return __real_llamafile_sgemm(params, m, n, k, A, lda, B, ldb, C, ldc, Atype, Btype, Ctype);
    }
    multiply(params, m, n, k, static_cast<const half*>(A), lda, static_cast<const float*>(B), ldb,
             static_cast<float*>(C), ldc);
    return true;
}

}  // extern "C"
