import hashlib
import sqlite3
import threading
from contextlib import closing

import pytest

from appliance.core.errors import StoreFailed
from appliance.store.database import connect
from appliance.store.reader import open_read_only, reading


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gigarouter.db"


@pytest.fixture
def writing(path):
    with closing(connect(path, (("m001", lambda c: c.execute("CREATE TABLE t (x)")),))) as made:
        made.execute("INSERT INTO t VALUES (1)")
        yield made


def count(connection):
    return connection.execute("SELECT count(*) FROM t").fetchone()[0]


def test_a_reader_sees_one_moment_while_the_writer_goes_on(path, writing):
    with reading(path) as books:
        assert count(books) == 1
        writing.execute("INSERT INTO t VALUES (2)")
        assert count(books) == 1
    with reading(path) as books:
        assert count(books) == 2


@pytest.mark.parametrize(
    "sql",
    ["INSERT INTO t VALUES (3)", "DELETE FROM t", "CREATE TABLE u (x)", "PRAGMA user_version = 3"],
)
def test_a_reader_cannot_write(path, writing, sql):
    with pytest.raises(StoreFailed, match="readonly"), reading(path) as books:
        books.execute(sql)
    assert count(writing) == 1


def test_a_reader_can_neither_fold_the_log_nor_lift_its_own_ban(path, writing):
    before = hashlib.sha256(path.read_bytes()).digest()
    log = path.with_name("gigarouter.db-wal")
    size = log.stat().st_size
    with closing(open_read_only(path)) as books:
        books.execute("PRAGMA query_only = OFF")
        for how in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            with pytest.raises(sqlite3.OperationalError):
                books.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            books.execute("INSERT INTO t VALUES (3)")
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert log.stat().st_size == size > 0


def test_closing_the_last_reader_leaves_the_log_of_a_writer_that_is_gone(path, tmp_path):
    """It would be folded by any connection that may write."""
    import shutil

    folder = tmp_path / "killed"
    with closing(connect(path, (("m001", lambda c: c.execute("CREATE TABLE t (x)")),))) as made:
        made.execute("INSERT INTO t VALUES (1)")
        folder.mkdir()
        for each in tmp_path.glob("gigarouter.db*"):
            shutil.copy(each, folder)
    log = folder / "gigarouter.db-wal"
    before = log.read_bytes()
    with reading(folder / "gigarouter.db") as books:
        assert count(books) == 1
    assert log.read_bytes() == before


def test_many_readers_and_the_writer_never_wait_for_each_other(path, writing):
    problems = []

    def read():
        try:
            for _ in range(20):
                with reading(path) as books:
                    assert count(books) >= 1
        except Exception as error:  # noqa: BLE001 - told below
            problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        writing.execute("INSERT INTO t VALUES (2)")
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert count(writing) == 201


def test_what_cannot_be_read_is_refused_by_name_and_nothing_is_made(path):
    with pytest.raises(StoreFailed, match=r"gigarouter\.db cannot be read"), reading(path) as books:
        count(books)
    assert not path.exists()
