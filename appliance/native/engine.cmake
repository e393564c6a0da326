# Engine: builds llama-cpp-python with our kernels and without what we never load.
#
# CMake includes this right after llama-cpp-python's own project() call, because the build is given
# -DCMAKE_PROJECT_llama_cpp_INCLUDE=<this file>. Nothing upstream is patched: the linker's --wrap
# leads ggml's calls of a function F to our __wrap_F, and our calls of __real_F to the original. A call
# that is not of the one shape a kernel is good at goes there, so all that can be lost is speed. Where
# the kernels cannot help (other processors, a build without AVX2) the engine stays as it is.

# A normal variable wins over upstream's option() and even set(... CACHE ... FORCE): CMP0077, CMP0126.
set(LLAMA_BUILD_COMMON OFF)  # chat templates, sampling, downloads: half of the compilation
set(LLAVA_BUILD OFF)         # the image encoder
set(LLAMA_OPENSSL OFF)

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

function(gigarouter_finish)
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
