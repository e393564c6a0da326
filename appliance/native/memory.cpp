// Memory: buffers that the engine clears take memory when they are written to, not before.
//
// Owns __wrap_ggml_backend_buffer_clear (engine.cmake says how calls come here). llama.cpp clears the
// keys and values of its whole context when it opens one, and so takes the memory of the longest
// sequence for a model that may never see one. Pages that are given back to the system read as zeros
// too, are taken again at the first write, and cost no time.
//
// gigarouter_engine tells Python that this build has it, and that contexts which pool keep no logits.

#include "ggml-backend.h"

#include <cstdint>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

extern "C" {

void __real_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);

int gigarouter_engine(void) { return 1; }

void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t begin = (uintptr_t) ggml_backend_buffer_get_base(buffer);
    const uintptr_t end = begin + ggml_backend_buffer_get_size(buffer);
    const uintptr_t first = (begin + page - 1) / page * page;
    const uintptr_t last = end / page * page;
    // Only memory that malloc gave is private to us and not backed by a file: it reads as zeros once it
    // is given back. The file's own pages ("CPU_Mapped") and a card's memory have other types.
    const char * type = ggml_backend_buft_name(ggml_backend_buffer_get_type(buffer));
    if (value != 0 || first >= last || strcmp(type, "CPU") != 0 ||
        madvise((void *) first, last - first, MADV_DONTNEED) != 0) {
        __real_ggml_backend_buffer_clear(buffer, value);
        return;
    }
    memset((void *) begin, 0, first - begin);
    memset((void *) last, 0, end - last);
}
}
