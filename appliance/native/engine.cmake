# Engine: builds llama-cpp-python with our kernels and without what we never load.
#
# CMake includes this right after llama-cpp-python's own project() call, because the build is given
# -DCMAKE_PROJECT_llama_cpp_INCLUDE=<this file>. The linker's --wrap leads ggml's calls of a function F
# to our __wrap_F, and our calls of __real_F to the original. A call that is not of the one shape a
# kernel is good at goes there, so all that can be lost is speed. Where the kernels cannot help (other
# processors, a build without AVX2) the engine keeps its own.
#
# One line of upstream is changed, because no call could be led elsewhere: a context that pools reserves
# no logits (gigarouter_without_logits).

# A normal variable wins over upstream's option() and even set(... CACHE ... FORCE): CMP0077, CMP0126.
set(LLAMA_BUILD_COMMON OFF)  # chat templates, sampling, downloads: half of the compilation
set(LLAVA_BUILD OFF)         # the image encoder
set(LLAMA_OPENSSL OFF)

set(GIGAROUTER_FOLDER "${CMAKE_CURRENT_LIST_DIR}")
set(GIGAROUTER_KERNELS products.cpp attention.cpp elementwise.cpp)
list(TRANSFORM GIGAROUTER_KERNELS PREPEND "${CMAKE_CURRENT_LIST_DIR}/")
set(GIGAROUTER_REPLACED
    llamafile_sgemm
    ggml_compute_forward_add_non_quantized
    ggml_compute_forward_cpy
    ggml_compute_forward_flash_attn_ext
    ggml_compute_forward_norm
    ggml_compute_forward_unary)

# Set `result` to whether ggml-cpu is compiled for a processor that has what the kernels need.
function(gigarouter_can_help result)
    set(${result} OFF PARENT_SCOPE)
    if(NOT TARGET ggml-cpu OR NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR MSVC)
        return()
    endif()
    get_target_property(options ggml-cpu COMPILE_OPTIONS)
    list(FILTER options INCLUDE REGEX "^-m")
    list(JOIN options " " CMAKE_REQUIRED_FLAGS)
    include(CheckCXXSourceCompiles)
    check_cxx_source_compiles("
        #if !(defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__))
        #error
        #endif
        int main() {}" GIGAROUTER_HAS_AVX2)
    set(${result} ${GIGAROUTER_HAS_AVX2} PARENT_SCOPE)
endfunction()

# A context reserves 4 bytes for each entry of the vocabulary and token of its longest batch, and fills
# them with zeros, even where a model has no logits: 8 GB for 8,192 tokens of XLM-RoBERTa. Compile a
# copy of llama-context.cpp in which a context that gives embeddings reserves none. What copies logits
# asks first whether there is room for them.
function(gigarouter_without_logits)
    get_target_property(folder llama SOURCE_DIR)
    file(READ "${folder}/llama-context.cpp" source)
    set(upstream "bool has_logits     = true;")
    string(FIND "${source}" "${upstream}" first)
    string(FIND "${source}" "${upstream}" last REVERSE)
    if(first EQUAL -1 OR NOT first EQUAL last)
        message(FATAL_ERROR "gigarouter: llama-context.cpp reserves logits in another way now")
    endif()
    string(REPLACE "${upstream}" "bool has_logits     = !cparams.embeddings && n_outputs > 0;" source "${source}")
    set(changed "${CMAKE_BINARY_DIR}/gigarouter/llama-context.cpp")
    file(CONFIGURE OUTPUT "${changed}" CONTENT "${source}" @ONLY)
    get_target_property(sources llama SOURCES)
    list(TRANSFORM sources REPLACE "^llama-context.cpp$" "${changed}")
    set_target_properties(llama PROPERTIES SOURCES "${sources}")
endfunction()

# Where a build has both, Python may give a model the sequences that its publisher promises.
function(gigarouter_save_memory)
    if(NOT TARGET llama OR NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR NOT BUILD_SHARED_LIBS)
        return()
    endif()
    gigarouter_without_logits()
    target_sources(llama PRIVATE "${GIGAROUTER_FOLDER}/memory.cpp")
    target_link_options(llama PRIVATE "LINKER:--wrap=ggml_backend_buffer_clear" "LINKER:--no-undefined")
endfunction()

function(gigarouter_finish)
    gigarouter_save_memory()
    gigarouter_can_help(helps)
    # --wrap does not see calls that link time optimization has already inlined.
    if(NOT helps OR GGML_LTO)
        message(STATUS "gigarouter: the engine keeps its own kernels")
        return()
    endif()
    message(STATUS "gigarouter: adding kernels to ggml-cpu")
    target_sources(ggml-cpu PRIVATE ${GIGAROUTER_KERNELS})
    foreach(function IN LISTS GIGAROUTER_REPLACED)
        target_link_options(ggml-cpu PRIVATE "LINKER:--wrap=${function}")
    endforeach()
    # A function that upstream has renamed fails the build here, not the process at its start.
    target_link_options(ggml-cpu PRIVATE "LINKER:--no-undefined")
endfunction()

cmake_language(DEFER CALL gigarouter_finish)  # once all targets exist
