#!/bin/sh
# Quickstart: from nothing to real vectors, a real ranking and a bill, in one command.
#
#   sh packaging/quickstart.sh          leaves the server running
#   sh packaging/quickstart.sh --once   stops it again
#
# Everything stays inside this folder: .venv (the programs) and .gigarouter (keys, credits, log).
# A second run uses what is there. GIGAROUTER_PORT and GIGAROUTER_DATA_DIR change the defaults.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/environment.sh"
install run
GIGAROUTER_DATA_DIR=${GIGAROUTER_DATA_DIR:-$root/.gigarouter}
export GIGAROUTER_DATA_DIR
exec "$python" "$root/packaging/quickstart.py" "$@"
