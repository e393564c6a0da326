# Engine: builds llama-cpp-python with our kernels and without what we never load.
#
# The distribution's source includes this right after llama-cpp-python's own project() call
# (distribution.py). GIGAROUTER_KERNELS=OFF leaves the kernels out. The linker's --wrap leads ggml's calls of a function F
# to our __wrap_F, and our calls of __real_F to the original. What no kernel of ours is good at goes
# there, so all that can be lost is speed. Where they cannot help (other systems, a processor without
# AVX2) the engine keeps its own.
#
# One line of upstream is changed, because no call could be led elsewhere: a context that pools reserves
# no logits (gigarouter_without_logits).

# A normal variable wins over upstream's option() and even set(... CACHE ... FORCE): CMP0077, CMP0126.
set(LLAMA_BUILD_COMMON OFF)  # chat templates, sampling, downloads: half of the compilation
set(LLAVA_BUILD OFF)         # the image encoder
set(LLAMA_OPENSSL OFF)

option(GIGAROUTER_KERNELS "Compute with our kernels where they are faster" ON)
set(GIGAROUTER_FOLDER "${CMAKE_CURRENT_LIST_DIR}")
include(CheckCCompilerFlag)
check_c_compiler_flag(-march=armv9.2-a+sme GIGAROUTER_HAS_SME)  # distribution.py puts it to use
set(GIGAROUTER_REPLACED ggml_cpu_extra_compute_forward ggml_cpu_extra_work_size)

# Compile the kernels for one instruction set into ggml-cpu, if the compiler knows its options.
#
# They are objects of their own, because ggml-cpu's options are those of one processor, and ours serve
# whichever processor the library is started on.
function(gigarouter_compile_kernels name)
    include(CheckCXXSourceCompiles)
    string(TOUPPER "GIGAROUTER_HAS_${name}" has)
    list(JOIN ARGN " " CMAKE_REQUIRED_FLAGS)
    check_cxx_source_compiles("int main() { return 0; }" ${has})
    if(NOT ${has})
        return()
    endif()
    add_library(gigarouter-${name} OBJECT "${GIGAROUTER_FOLDER}/kernels.cpp")
    set_target_properties(gigarouter-${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_compile_features(gigarouter-${name} PRIVATE cxx_std_17)
    # Contracted as the fused multiply-adds that they are written for; nothing else is reordered.
    target_compile_options(gigarouter-${name} PRIVATE -O3 -fvisibility=hidden -fno-exceptions -fno-rtti ${ARGN})
    target_compile_definitions(gigarouter-${name} PRIVATE GIGAROUTER_KERNELS=gigarouter_${name} NDEBUG)
    list(GET GIGAROUTER_LIBRARIES 0 library)
    target_include_directories(gigarouter-${name} PRIVATE $<TARGET_PROPERTY:${library},INCLUDE_DIRECTORIES>)
    # A function with a weak symbol may stand in for its namesake of a narrower instruction set, and end
    # the process there. There must be none.
    add_custom_target(gigarouter-${name}-symbols VERBATIM COMMAND_EXPAND_LISTS
        COMMAND sh -c "! \"$@\" | grep ' [VWuvw] '" weak "${CMAKE_NM}" -C $<TARGET_OBJECTS:gigarouter-${name}>)
    add_dependencies(gigarouter-${name}-symbols gigarouter-${name})
    set(GIGAROUTER_SETS ${GIGAROUTER_SETS} ${name} PARENT_SCOPE)
endfunction()

# Put the kernels that were compiled, and what chooses among them, into a library of ggml's for the
# processor.
function(gigarouter_add_kernels library)
    foreach(name IN LISTS GIGAROUTER_SETS)
        string(TOUPPER "GIGAROUTER_HAS_${name}" has)
        target_sources(${library} PRIVATE $<TARGET_OBJECTS:gigarouter-${name}>)
        add_dependencies(${library} gigarouter-${name}-symbols)
        target_compile_definitions(${library} PRIVATE ${has})
    endforeach()
    target_sources(${library} PRIVATE "${GIGAROUTER_FOLDER}/dispatch.cpp")
    foreach(function IN LISTS GIGAROUTER_REPLACED)
        target_link_options(${library} PRIVATE "LINKER:--wrap=${function}")
    endforeach()
    # A function that upstream has renamed fails the build here, not the process at its start.
    target_link_options(${library} PRIVATE "LINKER:--no-undefined")
endfunction()

# Install each library once, beside the binding, under the one name that it is loaded by. A wheel has
# no links: a versioned library would be in it three times.
function(gigarouter_install)
    foreach(library IN ITEMS llama ggml ggml-base LISTS GGML_AVAILABLE_BACKENDS)
        if(TARGET ${library})
            set_property(TARGET ${library} PROPERTY VERSION)
            set_property(TARGET ${library} PROPERTY SOVERSION)
        endif()
    endforeach()
    foreach(backend IN LISTS GGML_AVAILABLE_BACKENDS)
        if(GGML_BACKEND_DL)
            llama_cpp_python_install_target(${backend})
        endif()
    endforeach()
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
    if(UNIX)
        gigarouter_install()
    endif()
    # With dynamic backends there is one for each generation of processors; ggml loads the best.
    set(GIGAROUTER_LIBRARIES ${GGML_AVAILABLE_BACKENDS})
    list(FILTER GIGAROUTER_LIBRARIES INCLUDE REGEX "^ggml-cpu")
    # --wrap does not see calls that link time optimization has already inlined.
    if(NOT GIGAROUTER_KERNELS OR NOT GIGAROUTER_LIBRARIES OR NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR GGML_LTO)
        message(STATUS "gigarouter: the engine keeps its own kernels")
        return()
    endif()
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        gigarouter_compile_kernels(avx2 -march=haswell)
        gigarouter_compile_kernels(avx512 -march=skylake-avx512 -mprefer-vector-width=512)
        gigarouter_compile_kernels(amx -march=sapphirerapids -mprefer-vector-width=512)
        # None of ours is for a processor without AVX2.
        list(FILTER GIGAROUTER_LIBRARIES EXCLUDE REGEX "-(x64|sse42|sandybridge|ivybridge|piledriver)$")
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
        gigarouter_compile_kernels(neon -march=armv8-a)
    endif()
    if(NOT GIGAROUTER_SETS)
        message(STATUS "gigarouter: the engine keeps its own kernels")
        return()
    endif()
    message(STATUS "gigarouter: adding kernels to ${GIGAROUTER_LIBRARIES}")
    foreach(library IN LISTS GIGAROUTER_LIBRARIES)
        gigarouter_add_kernels(${library})
    endforeach()
endfunction()

cmake_language(DEFER CALL gigarouter_finish)  # once all targets exist
