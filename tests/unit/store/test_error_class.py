import sqlite3
from contextlib import closing

import pytest

from appliance.core.errors import StoreFailed
from appliance.store.error_class import classify


def sqlites(name):
    error = sqlite3.OperationalError("as sqlite says it")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "error_class"),
    [
        ("SQLITE_FULL", "full"),
        ("SQLITE_IOERR_SHMSIZE", "full"),
        ("SQLITE_IOERR", "fatal"),
        ("SQLITE_IOERR_FSYNC", "fatal"),
        ("SQLITE_IOERR_WRITE", "fatal"),
        ("SQLITE_CORRUPT", "fatal"),
        ("SQLITE_CORRUPT_INDEX", "fatal"),
        ("SQLITE_NOTADB", "fatal"),
        ("SQLITE_READONLY", "fatal"),
        ("SQLITE_READONLY_DBMOVED", "fatal"),
        ("SQLITE_ERROR", "fatal"),
        ("SQLITE_BUSY", "passing"),
        ("SQLITE_BUSY_SNAPSHOT", "passing"),
        ("SQLITE_LOCKED", "passing"),
        ("SQLITE_CANTOPEN", "passing"),
        ("SQLITE_CONSTRAINT_FOREIGNKEY", "passing"),
    ],
)
def test_what_sqlite_says_decides_whether_the_disk_is_full_broken_or_busy(name, error_class):
    assert classify(sqlites(name)) == error_class


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "EIO"), RuntimeError(), StoreFailed("x")]
)
def test_what_is_not_sqlites_is_the_worst(error):
    assert classify(error) == "fatal"


def test_text_that_is_none_is_damage_and_a_wrong_binding_is_not():
    with closing(sqlite3.connect(":memory:")) as connection:
        with pytest.raises(sqlite3.OperationalError) as undecodable:
            connection.execute("SELECT CAST(x'ff' AS TEXT)").fetchone()
        assert classify(undecodable.value) == "fatal"
        with pytest.raises(sqlite3.ProgrammingError) as unbound:
            connection.execute("SELECT ?")
        assert classify(unbound.value) == "passing"


def test_a_real_error_has_the_name_that_is_looked_at():
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 1").fetchone()
    with pytest.raises(sqlite3.OperationalError) as full:
        connection.execute("CREATE TABLE t (x)")
    assert classify(full.value) == "full"
    connection.close()
