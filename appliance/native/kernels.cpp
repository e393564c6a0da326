// Kernels: this file is compiled once for each instruction set, with GIGAROUTER_KERNELS as its name.

#include "kernels.h"

#include "attention.h"
#include "elementwise.h"
#include "peak.h"
#include "products.h"

namespace {

bool compute(const ggml_compute_params* params, ggml_tensor* out) {
    switch (out->op) {
        case GGML_OP_MUL_MAT: return product(params, out);
        case GGML_OP_FLASH_ATTN_EXT: return attention(params, out);
        case GGML_OP_UNARY: return gelu(params, out);
        case GGML_OP_ADD: return add(params, out);
        case GGML_OP_MUL: return multiply(params, out);
        case GGML_OP_NORM: return norm(params, out);
        case GGML_OP_CPY: return copy(params, out);
        default: return false;
    }
}

size_t scratch(const ggml_tensor* out) { return out->op == GGML_OP_MUL_MAT ? product_scratch(out) : 0; }

}  // namespace

extern const Kernels GIGAROUTER_KERNELS;
const Kernels GIGAROUTER_KERNELS = {compute, scratch, peak};
