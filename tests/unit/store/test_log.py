import sqlite3
from contextlib import closing

import pytest

from appliance.store.log import Log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.db"


@pytest.fixture
def connection(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA wal_autocheckpoint = 0")
        made.execute("CREATE TABLE t (x)")
        yield made


def write(connection, times):
    for _ in range(times):
        connection.execute("INSERT INTO t VALUES (randomblob(3000))")


def folded(connection):
    """Fold the log and return how many frames it had."""
    busy, frames, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert (busy, done) == (0, frames)
    return frames


def test_frames_are_counted_as_sqlite_does_also_after_the_log_began_again(path, connection):
    log = Log(path, page_bytes=4_096)
    for times in (1, 50, 7, 120, 3):
        write(connection, times)
        counted = max(count for count in range(500) if count == 0 or log.has_frames(count))
        assert counted == folded(connection)
    log.close()


def test_another_size_of_page_is_counted_as_well(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        write(connection, 5)
        log = Log(path, page_bytes=1_024)
        frames = folded(connection)
        assert log.has_frames(frames)
        assert not log.has_frames(frames + 1)
        log.close()


def test_no_log_and_an_empty_log_have_no_frames(path):
    log = Log(path, page_bytes=4_096)
    assert not log.has_frames(1)
    path.with_name("some.db-wal").touch()
    assert not log.has_frames(1)
    log.close()
    log.close()


def test_looking_drops_no_lock_of_sqlite(path, connection):
    log = Log(path, page_bytes=4_096)
    connection.execute("BEGIN IMMEDIATE")
    log.has_frames(1)
    log.close()
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")
