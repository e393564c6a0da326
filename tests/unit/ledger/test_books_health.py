"""A look at open books finds what is wrong with them and with the files beside them."""

import sqlite3
from contextlib import closing

import pytest

from appliance.core.limits import Limits
from appliance.ledger import books
from appliance.ledger.books import open_books
from appliance.ledger.books_health import look
from appliance.store.datadir import DataDir
from appliance.store.reader import open_read_only
from tests.appliance import HandClock
from tests.unit.ledger.test_audit import key


@pytest.fixture
def opened(tmp_path):
    directory, clock = DataDir(tmp_path / "data"), HandClock()
    with directory.locked(), open_books(directory, clock, Limits(reserve_bytes=4_096)) as made:
        made.writer.call(books.mint(key(), 10**9, clock.wall_us()))
        yield directory, made


def test_books_that_are_well(opened):
    directory, made = opened
    found = look(directory, made)
    assert (found.damage, found.broken, found.audit_problem, found.audit_error) == (None,) * 4
    assert found.has_reserve
    assert found.guard_agrees
    assert (found.guard_seq, found.last_seq) == (1, 1)
    assert found.bytes > 0
    assert found.log_bytes > 0
    assert found.audited_us == made.clock.wall_us()


def test_a_reserve_that_is_gone(opened):
    directory, made = opened
    directory.reserve.unlink()
    assert not look(directory, made).has_reserve


def test_a_guard_that_is_gone_or_says_something_else(opened):
    directory, made = opened
    guard = directory.rollback_guard.read_bytes()
    directory.rollback_guard.unlink()
    found = look(directory, made)
    assert (found.guard_seq, found.guard_agrees, found.last_seq) == (0, True, 1)
    directory.rollback_guard.write_bytes(guard)
    with closing(sqlite3.connect(directory.database, isolation_level=None)) as other:
        [(trigger,)] = other.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'transfers_never_change'"
        )
        other.execute("DROP TRIGGER transfers_never_change")
        other.execute("UPDATE transfers SET hash = zeroblob(32)")
        other.execute(trigger)
    assert not look(directory, made).guard_agrees


def test_a_damaged_page(opened):
    directory, made = opened
    with closing(sqlite3.connect(directory.database, isolation_level=None)) as other:
        other.execute("PRAGMA writable_schema = ON")
        other.execute(
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master"
            " WHERE name = 'holds') WHERE name = 'undelivered'"
        )
    assert look(directory, made).damage is not None


def test_books_that_were_closed_and_why(opened):
    directory, made = opened
    made.writer.fail_permanently("the books do not agree (A: overdrawn)")
    assert look(directory, made).broken == "the books do not agree (A: overdrawn)"


def test_a_long_log_is_measured_and_cut_once_no_reader_holds_it(opened):
    directory, made = opened

    def fill(connection):
        for number in range(100):
            connection.execute(
                "INSERT INTO prices (model, unit, realtime, batch, since_us)"
                " VALUES (?, 'token', 0, 0, 0)",
                (f"{number}" + "x" * 300_000,),
            )

    with closing(open_read_only(directory.database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM prices").fetchall()
        made.writer.call(fill)
        made.writer.call(fill)
        assert look(directory, made).log_bytes > 60_000_000
    for _ in range(5):
        made.writer.call(lambda c: c.execute("UPDATE accounts SET day = day + 1"))
    assert look(directory, made).log_bytes <= 17_000_000
