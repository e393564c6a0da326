# Environment: a virtual environment with the project in it, for quickstart.sh and test.sh.
#
# Sourced, not run. Sets `python` to the environment's interpreter. The engine is compiled on this
# machine, for this machine's processor and with our own kernels (engine/): a few minutes the first
# time, then a cache of our own has it. Not pip's: pip would hand out any llama-cpp-python it has
# ever built, however that was configured.

say() { printf '%s\n' "gigarouter: $*" >&2; }
die() { say "$*"; exit 1; }

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    die "needs Python 3.11 or newer with venv (on Debian: apt install python3-venv)"
}

require_compiler() {
    for compiler in "${CXX:-}" c++ g++ clang++; do
        [ -n "$compiler" ] && command -v "$compiler" >/dev/null 2>&1 && return
    done
    die "needs a C++ compiler to build the engine (on Debian: apt install g++; on macOS: xcode-select --install)"
}

# heartbeat PID: say every half minute that the work goes on.
heartbeat() {
    waited=0
    while kill -0 "$1" 2>/dev/null; do
        sleep 5
        waited=$((waited + 5))
        if [ $((waited % 30)) -eq 0 ] && kill -0 "$1" 2>/dev/null; then
            say "still installing after ${waited} s (compiling the engine takes 2 to 10 minutes, once)"
        fi
    done
}

# logged COMMAND...: run it with its output in the log and a heartbeat; return its status.
logged() {
    "$@" >>"$log" 2>&1 &
    installing=$!
    trap 'kill "$installing" 2>/dev/null' INT TERM
    heartbeat "$installing" &
    beating=$!
    status=0
    wait "$installing" || status=$?
    kill "$beating" 2>/dev/null || true
    trap - INT TERM
    return "$status"
}

pip() { "$python" -m pip --disable-pip-version-check "$@"; }

# engine_key REQUIREMENT: a name for everything that decides how the engine comes out.
engine_key() {
    {
        printf '%s\n' "$1" "${CMAKE_ARGS:-}" "${CFLAGS:-}" "${CXXFLAGS:-}" "$(uname -sm)"
        cat "$root/packaging/engine"/*
        for compiler in "${CC:-cc}" "${CXX:-c++}"; do
            command -v "$compiler" && "$compiler" --version
        done
        grep -m 1 '^flags' /proc/cpuinfo || sysctl -n machdep.cpu.brand_string
    } 2>/dev/null | cksum | tr ' ' '-'
}

# build_engine REQUIREMENT FOLDER: compile a wheel with our kernels into FOLDER.
build_engine() {
    mkdir -p "$2" && building=$(mktemp -d "$2/building.XXXXXX") || return 1
    # Our part comes last; what the user asks for (a GPU, say) stays.
    built=true
    (
        CMAKE_ARGS="${CMAKE_ARGS:-} \"-DCMAKE_PROJECT_llama_cpp_INCLUDE=$root/packaging/engine/engine.cmake\""
        export CMAKE_ARGS
        pip wheel --no-deps --no-cache-dir --no-binary llama-cpp-python --wheel-dir "$building" "$1"
    ) && mv -f "$building"/*.whl "$2" || built=false
    rm -rf "$building"
    $built
}

# install_engine: put the engine into the environment, from the cache if it was built before.
install_engine() {
    requirement=$(sed -n 's/^ *"\(llama-cpp-python[^"]*\)".*/\1/p' "$root/pyproject.toml")
    key=$(engine_key "$requirement")
    if [ "$(cat "$venv/.engine" 2>/dev/null)" = "$key" ] && "$python" -c 'import llama_cpp' 2>/dev/null; then
        return
    fi
    folder="${XDG_CACHE_HOME:-${HOME:-$root}/.cache}/gigarouter/engine/$key"
    set -- "$folder"/*.whl
    if [ ! -e "$1" ]; then
        require_compiler
        say "compiling the engine (llama.cpp) for this processor, 2 to 10 minutes once"
        if ! logged build_engine "$requirement" "$folder"; then
            say "the engine did not compile with our kernels (see .venv/install.log): taking it without, which is slower"
            return
        fi
        set -- "$folder"/*.whl
    fi
    logged pip install --force-reinstall --no-deps "$1" || return 0
    printf '%s\n' "$key" >"$venv/.engine"
}

# up_to_date FILE: whether nothing that decides what is installed is newer than FILE.
up_to_date() {
    [ -e "$1" ] && [ -z "$(find "$root/pyproject.toml" "$root/packaging/engine" -newer "$1")" ]
}

# install EXTRAS: make .venv and put the project into it, unless that is done already.
install() {
    extras=$1
    venv="$root/.venv"
    python="$venv/bin/python"
    log="$venv/install.log"
    stamp="$venv/.installed$(printf '%s' "$extras" | tr -c 'a-z\n' '-')"
    if [ -x "$python" ] && up_to_date "$stamp"; then
        return
    fi
    if [ ! -x "$python" ]; then
        base=$(find_python) || exit 1
        say "making a virtual environment in .venv with $("$base" --version)"
        "$base" -m venv "$venv" || die "could not make .venv"
    fi
    : >"$log"
    CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
    export CMAKE_BUILD_PARALLEL_LEVEL
    install_engine
    say "installing"
    # Compiles only where our build failed, and then only what we use: no image encoder.
    CMAKE_ARGS=${CMAKE_ARGS:--DLLAVA_BUILD=OFF}
    export CMAKE_ARGS
    if ! logged pip install --editable "$root$extras"; then
        tail -n 30 "$log" >&2
        die "the installation failed; the whole log is in .venv/install.log"
    fi
    touch "$stamp"
}
