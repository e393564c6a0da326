# Environment: a virtual environment with the project in it, for quickstart.sh and test.sh.
#
# Sourced, not run. Sets `python` to the environment's interpreter. The engine is compiled on this
# machine, for this machine's processor: a few minutes the first time, then pip's cache has it.

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
            say "still installing after ${waited} s (compiling the engine takes 5 to 15 minutes, once)"
        fi
    done
}

# install EXTRAS: make .venv and put the project into it, unless that is done already.
install() {
    extras=$1
    venv="$root/.venv"
    python="$venv/bin/python"
    stamp="$venv/.installed$(printf '%s' "$extras" | tr -c 'a-z\n' '-')"
    if [ -x "$python" ] && [ -e "$stamp" ] && [ ! "$root/pyproject.toml" -nt "$stamp" ]; then
        return
    fi
    if [ ! -x "$python" ]; then
        base=$(find_python) || exit 1
        say "making a virtual environment in .venv with $("$base" --version)"
        "$base" -m venv "$venv" || die "could not make .venv"
    fi
    if ! "$python" -c 'import llama_cpp' 2>/dev/null; then
        require_compiler
        say "installing; the engine (llama.cpp) is compiled for this processor, 5 to 15 minutes once"
    else
        say "installing"
    fi
    # Only what we use: no image encoder. Whoever sets CMAKE_ARGS knows better.
    CMAKE_ARGS=${CMAKE_ARGS:--DLLAVA_BUILD=OFF}
    CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
    export CMAKE_ARGS CMAKE_BUILD_PARALLEL_LEVEL
    log="$venv/install.log"
    "$python" -m pip install --disable-pip-version-check --editable "$root$extras" >"$log" 2>&1 &
    installing=$!
    trap 'kill "$installing" 2>/dev/null' INT TERM
    heartbeat "$installing" &
    beating=$!
    installed=true
    wait "$installing" || installed=false
    kill "$beating" 2>/dev/null || true
    if ! $installed; then
        tail -n 30 "$log" >&2
        die "the installation failed; the whole log is in .venv/install.log"
    fi
    trap - INT TERM
    touch "$stamp"
}
