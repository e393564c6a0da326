#!/bin/sh
# Lock: resolve pyproject.toml into packaging/lock/, for Linux and macOS and Python 3.11 and later.
#
#   sh packaging/lock.sh                         the versions that are locked, wherever they still fit
#   sh packaging/lock.sh --upgrade               the newest versions that fit
#   sh packaging/lock.sh --upgrade-package NAME  the newest of one
#
# The engine is not in them: packaging/engine.py builds it. What it needs is.
# run.txt holds what the program needs and what builds it; test.txt adds the extra `test`. Both have
# the same versions. Arguments go to `uv pip compile`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/environment.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
base=$(find_python) || exit 1
"$base" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check --quiet install "uv==$UV_VERSION"
cd "$root"
"$base" -c '
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["build-system"]["requires"]))
from appliance.native.distribution import NAME, NEEDS
print("\n".join(NEEDS))
with open(sys.argv[1], "w") as file:
    print(f"{NAME}; python_version < \x270\x27", file=file)
' "$work/override.txt" >"$work/build.in"

# compile NAME OPTIONS...: no index and no other place goes into the file.
compile() {
    file="packaging/lock/$1.txt"
    shift
    "$work/venv/bin/uv" pip compile pyproject.toml "$work/build.in" --output-file "$file" \
        --override "$work/override.txt" --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --quiet "$@"
}

mkdir -p packaging/lock
compile test --extra test --extra web "$@"
compile run --constraint packaging/lock/test.txt
