#!/bin/sh
# GPU check: the engine on this machine's graphics card, and one report of what it does there.
#
#   sh packaging/gpu_check.sh [--wheels DIR] [--without-peers] [cuda|metal|rocm|vulkan]
#
# Installs the prebuilt engine for the card (from DIR, else from pip's index), or compiles it with the
# card's toolkit; computes known vectors; then measures without HTTP, and a server beside llama.cpp's own
# on the same file and sentence-transformers on the same texts. The report is .gpu/report.md,
# whose figures are ratios of one run. What is installed stays in .venv; `gigarouter engine rollback`
# goes back. Half an hour where the peers are compiled, five minutes without them.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/environment.sh"
wheels='' peers=yes kind=''
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$2; shift 2 ;;
        --without-peers) peers=''; shift ;;
        cuda|metal|rocm|vulkan) kind=$1; shift ;;
        *) die "unknown argument: $1" ;;
    esac
done

found() { command -v "$1" >/dev/null 2>&1; }
if [ -z "$kind" ]; then
    if [ "$(uname -s)" = Darwin ]; then kind=metal
    elif found nvidia-smi; then kind=cuda
    elif [ -e /dev/kfd ]; then kind=rocm
    else kind=vulkan
    fi
fi
case $kind in
    cuda) flags=-DGGML_CUDA=on ;;
    rocm) flags=-DGGML_HIP=on ;;
    vulkan) flags=-DGGML_VULKAN=on ;;
    metal) flags=-DGGML_METAL=on ;;
esac

install test
cd "$root"
gigarouter="$root/.venv/bin/gigarouter"
report="$root/.gpu/report.md"
work=$(mktemp -d)
server=''
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$root/.gpu"
: >"$report"
step() { printf '\n## %s\n\n' "$*" | tee -a "$report"; }
# shown COMMAND...: run it; what it prints goes into the report, and a failure does not end the check.
shown() {
    printf '```\n' >>"$report"
    "$@" >"$work/out" 2>&1 || echo "(exit code $?)" >>"$work/out"
    tee -a "$report" <"$work/out"
    printf '```\n' >>"$report"
}

say "the engine for $kind"
if ! "$gigarouter" engine install "$kind" ${wheels:+--from "$wheels"}; then
    say "none is prebuilt: compiling it with $flags"
    CMAKE_ARGS="${CMAKE_ARGS:-} $flags" "$gigarouter" engine install native ||
        die "no engine for $kind can be had; see above"
fi

step "Machine"
case $kind in
    cuda) shown nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader ;;
    metal) shown sysctl -n machdep.cpu.brand_string ;;
    *) shown uname -a ;;
esac
step "Engine, and known vectors (cosine to sentence-transformers in float32)"
shown "$gigarouter" engine show
shown "$python" -P -m appliance.bench.golden
shown "$python" -P -c '
from appliance.engine.devices import native_devices
for each in native_devices():
    print(f"{each.kind:12} {each.name:12} {each.description}  {each.free / 1e9:.1f} of {each.memory / 1e9:.1f} GB free")'

step "Without HTTP"
shown "$gigarouter" bench --engine --data-dir "$work/data" --workloads short-64,b32x64,mixed

port=$("$python" -P -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
GIGAROUTER_DATA_DIR="$work/data" GIGAROUTER_PORT="$port"
export GIGAROUTER_DATA_DIR GIGAROUTER_PORT
"$gigarouter" serve >"$work/server.log" 2>&1 &
server=$!
waited=0
until "$gigarouter" models list >/dev/null 2>&1; do
    waited=$((waited + 1))
    [ "$waited" -lt 120 ] || die "the server does not answer: $(tail -n 5 "$work/server.log")"
    sleep 1
done
step "Through HTTP, with keys and the ledger"
if [ -n "$peers" ]; then
    CMAKE_ARGS="${CMAKE_ARGS:-} $flags" shown "$python" -m tests.bench.peers llama-server --folder .gpu/llama-server --bench
    step "sentence-transformers, without HTTP"
    shown "$python" -m tests.bench.peers sentence-transformers --folder .gpu/sentence-transformers --bench
else
    shown "$gigarouter" bench --workloads short-1,short-16,short-64,b32x64,mixed
fi
step "Doctor"
shown "$gigarouter" doctor
say "the report is in .gpu/report.md"
