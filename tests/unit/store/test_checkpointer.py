"""The log is copied into the database in time, whatever is written; a reader delays it."""

import sqlite3
from contextlib import closing

import pytest

from appliance.store import checkpointer as module
from appliance.store.checkpointer import FRAMES_MAX, Checkpointer

FRAME = 4_096 + 24


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.db"


@pytest.fixture
def connection(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA wal_autocheckpoint = 0")
        made.execute("PRAGMA synchronous = OFF")
        made.execute("CREATE TABLE t (number INTEGER PRIMARY KEY, x)")
        yield made


def frames(path):
    """The most pages that the log ever had: its file does not shrink."""
    return path.with_name("some.db-wal").stat().st_size // FRAME


LOADS = {
    "small rows": ((10,), 4_000),
    "large rows": ((20_000,), 400),
    "small rows, then large ones": ((10,) * 9 + (20_000,), 2_000),
}


@pytest.mark.parametrize(("sizes", "commits"), LOADS.values(), ids=LOADS.keys())
def test_the_log_stays_short_and_checkpoints_are_few(path, connection, sizes, commits):
    checkpointer = Checkpointer(connection)
    ran = 0
    for number in range(commits):
        size = sizes[number * len(sizes) // commits]
        connection.execute("INSERT INTO t (x) VALUES (randomblob(?))", (size,))
        ran += checkpointer.run_if_due(connection)
    longest = FRAMES_MAX * (1.1 if len(sizes) == 1 else 6)
    assert frames(path) < longest
    written = sum(1 + sizes[n * len(sizes) // commits] / 4_096 for n in range(commits))
    assert ran < 5 + 6 * written / FRAMES_MAX


def test_many_rows_in_one_commit_are_counted(path, connection):
    checkpointer = Checkpointer(connection)
    for _ in range(20):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t (x) VALUES (randomblob(?))", [(2_000,)] * 400)
        connection.execute("COMMIT")
        checkpointer.run_if_due(connection)
    assert frames(path) < 1.5 * FRAMES_MAX


def test_what_changed_nothing_is_followed_by_no_checkpoint(path, connection):
    checkpointer = Checkpointer(connection)
    connection.execute("INSERT INTO t (x) VALUES (1)")
    assert checkpointer.run_if_due(connection)
    assert not checkpointer.run_if_due(connection)
    connection.execute("SELECT * FROM t").fetchall()
    assert not checkpointer.run_if_due(connection)


def test_a_reader_lets_the_log_grow_and_its_end_lets_it_begin_again(path, connection, monkeypatch):
    monkeypatch.setattr(module, "FRAMES_MAX", 50)
    checkpointer = Checkpointer(connection)

    def write(times):
        for _ in range(times):
            connection.execute("INSERT INTO t (x) VALUES (randomblob(3000))")
            checkpointer.run_if_due(connection)

    write(10)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM t").fetchall()
        write(200)
        held = frames(path)
        assert held > 200
        reader.execute("COMMIT")
    write(400)
    assert frames(path) < held + 60
    busy, left, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert busy == 0
    assert left == copied < 2 * 50
