"""A writer on a disk whose n-th flush or write fails, for each n: run in a process of its own.

`python -m tests.money.dying_disk FOLDER N`, with `failing_sync.c` preloaded. Prints a line of JSON
for each n: what was acknowledged before the failure and after it, and what is in the file.
"""

import ctypes
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from appliance.core.clock import SystemClock
from appliance.core.errors import LedgerUnavailable, StoreFailed
from appliance.store import checkpointer
from appliance.store.reserve import Reserve
from appliance.store.writer import Writer

OPERATIONS = 60
AFTERWARDS = 5
PATIENCE_S = 1.0


def _tables(connection):
    connection.execute("CREATE TABLE notes (number INTEGER PRIMARY KEY, text TEXT) STRICT")


MIGRATIONS = (("m001_notes", _tables),)


def note(number):
    return lambda connection: connection.execute(
        "INSERT INTO notes VALUES (?, ?)", (number, "x" * 3_000)
    )


def trial(folder, *, sync, write, durable):
    """Write until the disk fails and go on trying; return what was promised and what is there."""
    folder.mkdir()
    path = folder / "gigarouter.db"
    found = {"sync": sync, "write": write, "before": [], "after": [], "broke": False}
    LIBRARY.fail_at(sync, write)
    try:
        writer = Writer(
            path,
            MIGRATIONS,
            writes_max=100,
            reserve=Reserve(folder / "reserve", 4_096, SystemClock()),
        )
    except StoreFailed:
        found["broke"] = True
    else:
        for number in range(OPERATIONS):
            try:
                writer.call(note(number), durable=durable(number))
            except LedgerUnavailable:
                found["broke"] = True
            else:
                found["after" if found["broke"] else "before"].append(number)
        # A failure that no operation met, while the log was folded, is final as well.
        found["final"] = writer.broken.done()
        LIBRARY.fail_at(0, 0)
        writer.close()
    LIBRARY.fail_at(0, 0)
    with closing(sqlite3.connect(path)) as books:
        exists = books.execute(
            "SELECT count(*) FROM sqlite_master WHERE name = 'notes'"
        ).fetchone()[0]
        found["kept"] = [n for (n,) in books.execute("SELECT number FROM notes")] if exists else []
        found["whole"] = books.execute("PRAGMA integrity_check(1)").fetchone()[0]
    return found


if __name__ == "__main__":
    LIBRARY = ctypes.CDLL(None)
    checkpointer.FRAMES_MAX = 10  # the log is folded often: that flushes too
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    mixed = lambda number: number % 3 == 0  # noqa: E731 - as holds and settlements come
    for n in range(1, count + 1):
        for kind in ("sync", "write"):
            numbers = {"sync": n if kind == "sync" else 0, "write": n if kind == "write" else 0}
            print(json.dumps(trial(folder / f"{kind}-{n}", **numbers, durable=mixed)))  # noqa: T201 - its output
