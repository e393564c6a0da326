// Kernel check: our kernels alone against plain loops in float64, on random shapes.
//
// Compiled by kernel_check.py together with kernels.cpp for one instruction set, under AddressSanitizer
// where this processor has it, and for AArch64 to run under emulation. Every tensor has memory of its
// own, exactly as large as it is, so that a read past its end is found. Prints what it did and exits
// with 1 at the first number that is wrong.

#include "kernels.h"

#include "ggml-cpu-impl.h"
#include "ggml.h"

#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const Kernels GIGAROUTER_KERNELS;

namespace {

std::mt19937 generator;
int threads_now = 1, waiting = 0, turn = 0;
std::mutex mutex;
std::condition_variable changed;

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }
float normal() { return std::normal_distribution<float>()(generator); }
bool is_rare() { return between(0, 40) == 0; }

[[noreturn]] void fail(const char* what, double got, double wanted) {
    std::printf("%s: got %.9g, not %.9g\n", what, got, wanted);
    std::exit(1);
}

void require(const char* what, double got, double wanted, double bound) {
    const bool same = std::isfinite(wanted) ? std::abs(got - wanted) <= bound : !std::isfinite(got);
    if (!same) fail(what, got, wanted);
}

// A context without memory: each tensor's data is an allocation of its own.
class Graph {
public:
    Graph() : context_(ggml_init({1 << 20, nullptr, true})) {}
    ~Graph() { ggml_free(context_); }

    ggml_context* get() const { return context_; }

    ggml_tensor* tensor(ggml_type type, std::vector<int64_t> shape) {
        shape.resize(4, 1);
        return allocated(ggml_new_tensor(context_, type, 4, shape.data()));
    }

    ggml_tensor* allocated(ggml_tensor* tensor) {
        memory_.emplace_back(new char[ggml_nbytes(tensor)]);
        tensor->data = memory_.back().get();
        return tensor;
    }

    // Compute an operation on so many threads; false: the kernels leave it to ggml.
    bool compute(ggml_tensor* out, int threads) {
        allocated(out);
        const size_t size = GIGAROUTER_KERNELS.scratch(out);
        std::unique_ptr<char[]> scratch(new char[size]);
        std::vector<char> taken(threads);
        std::vector<std::thread> running;
        threads_now = threads;
        for (int i = 0; i < threads; i++) {
            running.emplace_back([&, i] {
                ggml_compute_params params{};
                params.ith = i;
                params.nth = threads;
                params.wsize = size;
                params.wdata = scratch.get();
                taken[i] = GIGAROUTER_KERNELS.compute(&params, out);
            });
        }
        for (std::thread& each : running) each.join();
        return taken[0];
    }

private:
    ggml_context* context_;
    std::vector<std::unique_ptr<char[]>> memory_;
};

float* floats(const ggml_tensor* tensor) { return static_cast<float*>(tensor->data); }

// Fill a tensor of any type; return what its numbers are then.
std::vector<float> fill(ggml_tensor* tensor, const std::function<float()>& draw) {
    const int64_t count = ggml_nelements(tensor), width = tensor->ne[0];
    std::vector<float> numbers(count);
    for (float& number : numbers) number = draw();
    if (tensor->type == GGML_TYPE_F32) {
        std::copy(numbers.begin(), numbers.end(), floats(tensor));
    } else {
        ggml_quantize_chunk(tensor->type, numbers.data(), tensor->data, 0, count / width, width, nullptr);
        ggml_get_type_traits(tensor->type)->to_float(tensor->data, numbers.data(), count);
    }
    return numbers;
}

void check_product() {
    const ggml_type types[] = {GGML_TYPE_F16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0};
    const ggml_type type = types[between(0, 5)];
    const int64_t block = ggml_blck_size(type), depth = block * between(1, 1 + 700 / block);
    const int64_t rows = between(1, 70), columns = between(2, 90), heads = between(1, 2), copies = between(1, 3);
    Graph graph;
    ggml_tensor* w = graph.tensor(type, {depth, rows, heads});
    ggml_tensor* x = graph.tensor(GGML_TYPE_F32, {depth, columns, heads * copies});
    const bool is_wild = is_rare() && block == 1;
    const auto draw = [&] { return is_wild && between(0, 5000) == 0 ? std::numeric_limits<float>::infinity() : normal(); };
    const std::vector<float> weights = fill(w, draw), inputs = fill(x, draw);
    ggml_tensor* out = ggml_mul_mat(graph.get(), w, x);
    if (!graph.compute(out, static_cast<int>(between(1, 3)))) return;
    for (int64_t i = 0; i < rows * columns * heads * copies; i++) {
        const int64_t row = i % rows, column = i / rows % columns, head = i / rows / columns;
        const float* a = &weights[(head / copies * rows + row) * depth];
        const float* b = &inputs[(head * columns + column) * depth];
        double sum = 0, a2 = 0, b2 = 0;
        for (int64_t k = 0; k < depth; k++) {
            sum += double(a[k]) * b[k];
            a2 += double(a[k]) * a[k];
            b2 += double(b[k]) * b[k];
        }
        require(ggml_type_name(type), floats(out)[i], sum, std::sqrt(a2 * b2) / 32768);
    }
}

void check_attention() {
    const int64_t size = 16 * between(1, 5), kv_heads = between(1, 2), heads = kv_heads * 3;
    std::vector<int64_t> owner;
    for (int64_t sequence = 0, many = between(1, 5); sequence < many; sequence++) {
        owner.insert(owner.end(), between(1, is_rare() ? 150 : 40), sequence);
    }
    const int64_t tokens = owner.size();
    const bool is_causal = between(0, 1), has_mask = between(0, 4) > 0;
    Graph graph;
    ggml_tensor* q = graph.tensor(GGML_TYPE_F32, {size, heads, tokens});
    ggml_tensor* k = graph.tensor(GGML_TYPE_F16, {size, kv_heads, tokens});
    ggml_tensor* v = graph.tensor(GGML_TYPE_F16, {size, kv_heads, tokens});
    ggml_tensor* mask = has_mask ? graph.tensor(GGML_TYPE_F16, {tokens, tokens}) : nullptr;
    const std::vector<float> queries = fill(q, normal), keys = fill(k, normal), values = fill(v, normal);
    std::vector<float> seen(tokens * tokens, 0.0f);
    if (has_mask) {
        int64_t at = 0;
        const int64_t blind = between(0, 2 * tokens);  // a query that sees nothing, half of the time
        seen = fill(mask, [&] {
            const int64_t query = at / tokens, key = at++ % tokens;
            const bool hidden = query == blind || owner[query] != owner[key] || (is_causal && key > query);
            return hidden ? -std::numeric_limits<float>::infinity() : is_rare() ? -1.5f : 0.0f;
        });
    }
    const float scale = 1 / std::sqrt(static_cast<float>(size));
    const auto turned = [&](ggml_tensor* x) { return ggml_permute(graph.get(), x, 0, 2, 1, 3); };
    ggml_tensor* out = ggml_flash_attn_ext(graph.get(), turned(q), turned(k), turned(v), mask, scale, 0, 0);
    for (ggml_tensor* view : {out->src[0], out->src[1], out->src[2]}) view->data = view->src[0]->data;
    if (!graph.compute(out, static_cast<int>(between(1, 3)))) return;
    for (int64_t query = 0; query < tokens; query++) {
        for (int64_t head = 0; head < heads; head++) {
            std::vector<double> weight(tokens);
            double most = -std::numeric_limits<double>::infinity(), sum = 0;
            for (int64_t key = 0; key < tokens; key++) {
                double score = 0;
                for (int64_t i = 0; i < size; i++) {
                    score += double(queries[(query * heads + head) * size + i]) * keys[(key * kv_heads + head / 3) * size + i];
                }
                weight[key] = score * scale + seen[query * tokens + key];
                most = std::max(most, weight[key]);
            }
            for (double& each : weight) sum += each = std::isfinite(most) ? std::exp(each - most) : 0;
            for (int64_t i = 0; i < size; i++) {
                double wanted = 0;
                for (int64_t key = 0; key < tokens; key++) {
                    wanted += weight[key] / (sum > 0 ? sum : 1) * values[(key * kv_heads + head / 3) * size + i];
                }
                require("attention", floats(out)[(query * heads + head) * size + i], wanted, 4e-6);
            }
        }
    }
}

void check_elementwise() {
    const int64_t width = between(1, 100), rows = between(1, 20);
    const int threads = static_cast<int>(between(1, 3));
    Graph graph;
    ggml_tensor* x = graph.tensor(GGML_TYPE_F32, {width, rows});
    ggml_tensor* y = graph.tensor(GGML_TYPE_F32, {width, between(0, 1) ? rows : 1});
    const bool is_wild = is_rare();
    const std::vector<float> a = fill(x, [&] { return is_wild && is_rare() ? std::nanf("") : 4 * normal(); });
    const std::vector<float> b = fill(y, normal);
    ggml_tensor *sum = ggml_add(graph.get(), x, y), *product = ggml_mul(graph.get(), x, y);
    ggml_tensor *gelu = ggml_gelu(graph.get(), x), *norm = ggml_norm(graph.get(), x, 1e-5f);
    ggml_tensor* narrow = ggml_cast(graph.get(), x, GGML_TYPE_F16);
    if (!graph.compute(sum, threads) || !graph.compute(product, threads) || !graph.compute(gelu, threads)) {
        fail("an elementwise operation was not taken", 0, 1);
    }
    const bool has_norm = graph.compute(norm, threads), has_narrow = graph.compute(narrow, threads);
    for (int64_t row = 0; row < rows; row++) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < width; i++) mean += a[row * width + i] / double(width);
        for (int64_t i = 0; i < width; i++) variance += std::pow(a[row * width + i] - mean, 2) / double(width);
        for (int64_t i = 0; i < width; i++) {
            const int64_t at = row * width + i;
            const float other = b[at % b.size()];
            const double d = a[at];
            require("add", floats(sum)[at], a[at] + other, 0);
            require("mul", floats(product)[at], a[at] * other, 0);
            const double wanted = 0.5 * d * (1 + std::tanh(std::sqrt(2 / M_PI) * (d + 0.044715 * d * d * d)));
            require("gelu", floats(gelu)[at], wanted, 1e-6 * std::max(1.0, std::abs(wanted)));
            if (has_norm) require("norm", floats(norm)[at], (d - mean) / std::sqrt(variance + 1e-5), 2e-5);
            if (has_narrow) {
                const ggml_fp16_t half = static_cast<ggml_fp16_t*>(narrow->data)[at];
                require("narrow", ggml_fp16_to_fp32(half), ggml_fp16_to_fp32(ggml_fp32_to_fp16(a[at])), 0);
            }
        }
    }
}

}  // namespace

// Stands in for ggml's: waits for all threads of the operation.
extern "C" void ggml_barrier(ggml_threadpool*) {
    std::unique_lock lock(mutex);
    const int mine = turn;
    if (++waiting == threads_now) {
        waiting = 0;
        turn++;
        changed.notify_all();
    }
    changed.wait(lock, [&] { return turn != mine; });
}

int main(int count, char** arguments) {
    const int rounds = count > 1 ? std::atoi(arguments[1]) : 200;
#if defined(__AMX_BF16__)
    // As dispatch.cpp asks: tiles are not given to a process that does not.
    if (syscall(SYS_arch_prctl, 0x1023, 18) != 0) fail("tiles", 0, 1);
#endif
    for (int round = 0; round < rounds; round++) {
        generator.seed(round);
        check_product();
        check_attention();
        check_elementwise();
    }
    std::printf("%d rounds of products, attention and elementwise operations are right\n", rounds);
}
