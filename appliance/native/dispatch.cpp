// Dispatch: the kernels for this processor, in the place where ggml asks its extra buffer types.
//
// ggml asks them before each operation, and before that for the memory that it needs. What they take
// is theirs; of the rest our kernels take what they are good at, and ggml does what is left.

#include "kernels.h"

#include "traits.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(GIGAROUTER_HAS_AMX)
extern const Kernels gigarouter_amx;
#endif
#if defined(GIGAROUTER_HAS_AVX512)
extern const Kernels gigarouter_avx512;
#endif
#if defined(GIGAROUTER_HAS_AVX2)
extern const Kernels gigarouter_avx2;
#endif
#if defined(GIGAROUTER_HAS_NEON)
extern const Kernels gigarouter_neon;
#endif

namespace {

#if defined(__x86_64__)

bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
           __builtin_cpu_supports("bmi2");
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

// Whether the processor has tiles of bfloat16 and the kernel lets this process use them: it must be
// asked, once, and refuses where a signal's stack is too small to save them.
bool has_amx() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    constexpr unsigned AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24;
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & AMX_BF16) && (d & AMX_TILE) &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

#endif

struct Choice {
    const char* name;
    bool (*is_supported)();
    const Kernels* kernels;
};

// The widest first.
const Choice choices[] = {
#if defined(GIGAROUTER_HAS_AMX)
    {"amx", has_amx, &gigarouter_amx},
#endif
#if defined(GIGAROUTER_HAS_AVX512)
    {"avx512", has_avx512, &gigarouter_avx512},
#endif
#if defined(GIGAROUTER_HAS_AVX2)
    {"avx2", has_avx2, &gigarouter_avx2},
#endif
#if defined(GIGAROUTER_HAS_NEON)
    {"neon", [] { return true; }, &gigarouter_neon},
#endif
    {"none", [] { return true; }, nullptr},
};

// The widest that this processor has; with GIGAROUTER_KERNELS the one of that name, if it has it.
const Choice* first_choice() {
    const char* name = std::getenv("GIGAROUTER_KERNELS");
    const Choice* widest = nullptr;
    for (const Choice& choice : choices) {
        if (!choice.is_supported()) continue;
        if (name != nullptr && std::strcmp(choice.name, name) == 0) return &choice;
        if (widest == nullptr) widest = &choice;
    }
    return widest;
}

std::atomic<const Choice*>& chosen() {
    static std::atomic<const Choice*> choice{first_choice()};
    return choice;
}

}  // namespace

extern "C" {

// The name of the kernels in use: amx, avx512, avx2, neon or none.
const char* gigarouter_kernels(void) { return chosen().load()->name; }

// Use those of this name from the next graph on; false where this processor or build has none such.
// Nothing may be computed meanwhile.
bool gigarouter_use_kernels(const char* name) {
    for (const Choice& choice : choices) {
        if (std::strcmp(choice.name, name) == 0 && choice.is_supported()) {
            chosen().store(&choice);
            return true;
        }
    }
    return false;
}

// Compute as fast as the kernels in use can and return the floating-point operations done; 0 for none.
int64_t gigarouter_peak(int64_t steps) {
    const Kernels* kernels = chosen().load()->kernels;
    return kernels ? kernels->peak(steps) : 0;
}

// Taking the type from the original: should upstream change a signature, this does not compile.
decltype(ggml_cpu_extra_compute_forward) __real_ggml_cpu_extra_compute_forward, __wrap_ggml_cpu_extra_compute_forward;
decltype(ggml_cpu_extra_work_size) __real_ggml_cpu_extra_work_size, __wrap_ggml_cpu_extra_work_size;

bool __wrap_ggml_cpu_extra_compute_forward(ggml_compute_params* params, ggml_tensor* op) {
    const Kernels* kernels = chosen().load(std::memory_order_relaxed)->kernels;
    return __real_ggml_cpu_extra_compute_forward(params, op) || (kernels && kernels->compute(params, op));
}

bool __wrap_ggml_cpu_extra_work_size(int n_threads, const ggml_tensor* op, size_t* size) {
    if (__real_ggml_cpu_extra_work_size(n_threads, op, size)) return true;
    const Kernels* kernels = chosen().load(std::memory_order_relaxed)->kernels;
    const size_t needed = kernels ? kernels->scratch(op) : 0;
    // More than the original would need for the same operation: it may still compute it.
    if (needed > *size) *size = needed;
    return needed > 0;
}

}  // extern "C"
