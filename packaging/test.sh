#!/bin/sh
# Test: install the test extras and run the whole suite, four files at a time: most tests wait for
# processes, disks or clocks, not for a core. In the order of their names: by the number of their tests
# the longest, which are few, would come last and alone. Then, with the cores for themselves, those
# whose figures would be other tests' work (marked `alone`). With arguments, which go to pytest, one at
# a time.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/environment.sh"
install test
cd "$root"
if [ $# -eq 0 ]; then
    "$python" -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder -m "not alone"
    set -- -m alone
fi
exec "$python" -m pytest "$@"
