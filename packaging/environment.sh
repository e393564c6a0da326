# Environment: a virtual environment with the project in it, for quickstart.sh and test.sh.
#
# Sourced, not run. Sets `python` to the environment's interpreter. The engine is compiled on this
# machine, for this machine's processor and with our own kernels (appliance/native): a few minutes
# the first time, then a cache has it. With -P (Python 3.11 and newer) no module of the current
# folder is run in the place of Python's own.

UV_VERSION=0.13.9  # resolves the lock: packaging/lock.sh
PIP_AUDIT_VERSION=2.10.1  # asks for known vulnerabilities: packaging/audit.sh

say() { printf '%s\n' "gigarouter: $*" >&2; }
die() { say "$*"; exit 1; }

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -P -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    die "needs Python 3.11 or newer with venv (on Debian: apt install python3-venv)"
}

# heartbeat PID: say every half minute that the work goes on.
heartbeat() {
    waited=0
    while kill -0 "$1" 2>/dev/null; do
        sleep 5
        waited=$((waited + 5))
        if [ $((waited % 30)) -eq 0 ] && kill -0 "$1" 2>/dev/null; then
            say "still installing after ${waited} s"
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

# up_to_date FILE: whether nothing that decides what is installed is newer than FILE.
up_to_date() {
    sources=$(find "$root/pyproject.toml" "$root/packaging/lock" "$root/appliance/native" -type f ! -name '*.pyc' -newer "$1" 2>&1)
    [ -z "$sources" ]
}

# put ARGUMENTS...: `pip install`, or the end with the log's last lines.
put() {
    if ! logged "$python" -P -m pip --disable-pip-version-check install "$@"; then
        tail -n 30 "$log" >&2
        die "the installation failed; the whole log is in .venv/install.log"
    fi
}

# install LOCK: make .venv and put the project into it with the versions of packaging/lock/LOCK.txt
# (run or test), each checked against its hashes, unless that is done already.
install() {
    lock="$root/packaging/lock/$1.txt"
    venv="$root/.venv"
    python="$venv/bin/python"
    log="$venv/install.log"
    stamp="$venv/.installed-$1"
    if [ -x "$python" ] && up_to_date "$stamp"; then
        return
    fi
    if [ ! -x "$python" ]; then
        base=$(find_python) || exit 1
        say "making a virtual environment in .venv with $("$base" --version)"
        "$base" -P -m venv "$venv" || die "could not make .venv"
    fi
    : >"$log"
    "$python" "$root/packaging/engine.py" || die "the engine cannot be built; see above"
    say "installing"
    put --require-hashes --requirement "$lock"
    # The project itself has no hash; all that it and its build need is there by now.
    put --no-deps --no-build-isolation --editable "$root"
    touch "$stamp"
}
