#!/bin/sh
# Test: install the test extras and run the whole suite. Arguments go to pytest.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/environment.sh"
install test
cd "$root"
exec "$python" -m pytest "$@"
