#!/bin/sh
# Audit: look at everything that is installed with the program; exit code 1 says what is wrong.
#
#   sh packaging/audit.sh [SBOM.json]     with a name, the bill of materials is written there
#
# The lock agrees with pyproject.toml, each version has its hashes and each dependency a ceiling; the
# wheel brings no .pth file, and the environment none that nobody knows; licences are ones that we
# may use; and no locked version has a known vulnerability, if the database of these can be asked.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/environment.sh"
install test
cd "$root"
step() { printf '\n== %s\n' "$*"; }

step "lock, hashes, ceilings, .pth files"
"$python" -m pytest -q -p no:cacheprovider \
    tests/house/test_dependencies.py tests/house/test_supply.py tests/house/test_packaging.py
"$python" -P -m pip --disable-pip-version-check check

step "licences"
"$python" packaging/licences.py

if [ $# -gt 0 ]; then
    step "bill of materials: $1"
    "$python" packaging/sbom.py "$1"
fi

step "known vulnerabilities"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# In an environment of its own: the scanner is no part of what it looks at.
if ! { "$python" -P -m venv "$work/venv" &&
    "$work/venv/bin/python" -P -m pip --disable-pip-version-check --quiet install "pip-audit==$PIP_AUDIT_VERSION"; } \
    >"$work/log" 2>&1; then
    say "not looked up: pip-audit cannot be installed here"
    exit 0
fi
# The engine carries a binding that no lock has.
{
    cat packaging/lock/run.txt
    "$python" -P -c '
from appliance.native.distribution import BINDING, BINDING_SHA256, binding_version
print(f"{BINDING}=={binding_version()} --hash=sha256:{BINDING_SHA256}")'
} >"$work/run.txt"
# --disable-pip: the lock is complete, and nothing is fetched to find out more.
"$work/venv/bin/pip-audit" --require-hashes --disable-pip --progress-spinner off \
    --format json --output "$work/found.json" --requirement "$work/run.txt" >"$work/log" 2>&1 || true
if [ -s "$work/found.json" ]; then
    "$python" packaging/vulnerabilities.py "$work/found.json"
else
    tail -n 3 "$work/log" >&2
    say "not looked up: the database does not answer"
fi
