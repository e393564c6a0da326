"""Old calls' rows: what is removed, what stays in its place, and what proves it."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from appliance.core.clock import MICROSECONDS_PER_DAY
from appliance.core.errors import StoreFailed
from appliance.core.limits import Limits
from appliance.ledger import audit, books, delivery_acks, ledger, prices, retention, transfer
from appliance.ledger.books import open_books
from appliance.ledger.entry import IdempotencyKey
from appliance.store.datadir import DataDir
from tests.appliance import HandClock
from tests.money.audit import problems as recomputed
from tests.unit.ledger.test_audit import NOON, TARIFF, key, purchase

DAYS = 10
END = NOON + DAYS * MICROSECONDS_PER_DAY


@pytest.fixture
def opened(tmp_path):
    """Books with a grant and five charges on each of ten days."""
    directory, clock = DataDir(tmp_path / "data"), HandClock(NOON)
    with directory.locked(), open_books(directory, clock, Limits()) as made:
        made.writer.call(books.mint(key(), 10**9, NOON))
        version = made.writer.call(lambda c: prices.publish(c, "m", TARIFF, NOON))
        for day in range(DAYS):
            for _ in range(5):
                charge(made, version, NOON + day * MICROSECONDS_PER_DAY)
        yield made


def charge(made, version, at_us, *, delivered=True, repeat=None):
    hold = made.balances.hold(purchase(version), at_us)
    seq = made.writer.call(lambda c: ledger.settle_hold(c, hold, at_us, repeat)).seq
    if delivered:
        made.writer.call(lambda c: delivery_acks.mark(c, [seq]))
    return seq


def removed(made, days):
    """Remove what is older than so many days; return how many."""
    before_us = END - days * MICROSECONDS_PER_DAY
    return made.writer.call(lambda c: retention.remove(c, before_us, END))


def found(made):
    return made.writer.call(lambda c: [*audit.problems(c), *recomputed(c)])


def test_what_is_old_goes_and_balances_sums_and_chain_stay(opened):
    before = opened.writer.call(lambda c: transfer.read_statement(c, "A", END))
    usage = opened.writer.call(lambda c: c.execute("SELECT * FROM usage_days").fetchall())
    assert removed(opened, 4) == 1 + 5 * 6
    assert found(opened) == []
    assert opened.writer.call(lambda c: transfer.read_statement(c, "A", END)) == before
    assert opened.writer.call(lambda c: c.execute("SELECT * FROM usage_days").fetchall()) == usage
    assert removed(opened, 4) == 0
    assert removed(opened, 2) == 5 * 2
    assert found(opened) == []


def test_the_last_transfer_stays_and_the_next_one_follows_it(opened):
    assert removed(opened, -1) == 5 * DAYS
    assert opened.writer.call(lambda c: c.execute("SELECT seq FROM transfers").fetchall()) == [
        (5 * DAYS + 1,)
    ]
    assert found(opened) == []
    statement = opened.writer.call(lambda c: transfer.read_statement(c, "A", END))
    opened.writer.call(books.top_up("A", 5, END))
    assert removed(opened, -1) == 1
    # Of a key whose rows are gone its last day is known still.
    after = opened.writer.call(lambda c: transfer.read_statement(c, "A", END))
    last_day_us = NOON + (DAYS - 1) * MICROSECONDS_PER_DAY
    assert statement.charged_us == last_day_us
    assert after.charged_us == last_day_us // MICROSECONDS_PER_DAY * MICROSECONDS_PER_DAY
    assert found(opened) == []


def test_a_large_number_goes_in_parts(opened, monkeypatch):
    monkeypatch.setattr(retention, "ROWS_MAX", 7)
    parts = []
    while parts[-1:] != [0]:
        parts.append(removed(opened, 0))
        assert found(opened) == []
    assert parts == [7] * 7 + [1, 0]


def test_what_may_still_be_refunded_or_repeated_stays_with_all_after_it(opened):
    version = opened.writer.call(lambda c: prices.publish(c, "m", TARIFF, END))
    repeat = IdempotencyKey(b"t" * 32, b"f" * 32)
    kept = charge(opened, version, END, repeat=repeat)
    charge(opened, version, END)
    assert removed(opened, -1) == kept - 1
    other = charge(opened, version, END, delivered=False)
    later = END + 2 * MICROSECONDS_PER_DAY
    opened.writer.call(books.top_up("A", 5, later))
    gone = opened.writer.call(lambda c: retention.remove(c, later + 1, later))
    assert gone == other - kept
    # A refund and its charge go together.
    opened.writer.call(lambda c: ledger.refund(c, other, "refund", later))
    assert opened.writer.call(lambda c: retention.remove(c, later + 1, later)) == 0
    opened.writer.call(books.top_up("A", 5, later))
    assert opened.writer.call(lambda c: retention.remove(c, later + 1, later)) == 3
    assert found(opened) == []


FORBIDDEN = {
    "what was not removed": "DELETE FROM transfers WHERE seq = 40",
    "the checkpoint": "DELETE FROM checkpoint",
    "back to an older one": "UPDATE checkpoint SET seq = seq - 1",
}


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_the_database_refuses_to_lose_anything_else(opened, statement):
    removed(opened, 4)
    with pytest.raises((sqlite3.IntegrityError, StoreFailed), match=r"immutable|stays so"):
        opened.writer.call(lambda c: c.execute(statement))


TAMPERED = {
    "the hash": "UPDATE checkpoint SET hash = zeroblob(32)",
    "the number": "UPDATE checkpoint SET seq = 33",
    "a sum": "UPDATE opening_balances SET posted = posted + 1 WHERE account = 'A'",
    "no sum": "DELETE FROM opening_balances WHERE account = 'A'",
    "a row of before": (
        "INSERT INTO transfers SELECT 3, kind, debit, credit, amount, at_us, 3, refunds, price,"
        " tier, each, units, model, request_id, hash FROM transfers WHERE seq = 40"
    ),
}


@pytest.mark.parametrize("statement", TAMPERED.values(), ids=TAMPERED.keys())
def test_an_audit_finds_what_was_changed_afterwards(opened, statement):
    removed(opened, 4)
    database = opened.writer.path
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TRIGGER checkpoint_never_goes_back")
        connection.execute(statement)
        assert audit.problems(connection) != []
        assert audit.problems(connection, links=100) != []
        assert recomputed(connection) != []


def test_a_backup_from_before_proves_what_was_removed_and_no_other_one_does(opened, tmp_path):
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as copy, closing(sqlite3.connect(opened.writer.path)) as now:
        now.backup(copy)
    removed(opened, 4)

    def said(change=None, *, chained=False):
        changed = tmp_path / "changed.db"
        shutil.copy(old, changed)
        with (
            closing(sqlite3.connect(opened.writer.path)) as now,
            closing(sqlite3.connect(changed, isolation_level=None)) as backup,
        ):
            if change:
                backup.execute("DROP TRIGGER transfers_never_change")
                backup.execute("DROP TRIGGER transfers_never_go")
                backup.execute(change)
            if chained:
                before = transfer.GENESIS
                for row in backup.execute(f"{transfer.SELECT} ORDER BY seq").fetchall():
                    before = transfer.chained(before, transfer.Transfer(*row))
                    backup.execute("UPDATE transfers SET hash = ? WHERE seq = ?", (before, row[0]))
            return list(retention.disagreements(now, backup))

    assert said() == []
    assert "what was written" in said("UPDATE transfers SET at_us = 7 WHERE seq = 3")[0]
    [problem] = said("DELETE FROM transfers WHERE seq > 9")
    assert problem == "the backup does not have what was removed up to transfer 31"
    assert said("DELETE FROM transfers WHERE seq > 31") == []
    # Another history, whose chain is whole.
    [problem] = said("UPDATE transfers SET at_us = at_us + 1 WHERE seq >= 3", chained=True)
    assert problem == "transfer 31 of the backup is another one than was removed here"
    # What was removed before the backup was made is not in it.
    with closing(sqlite3.connect(opened.writer.path)) as now, closing(sqlite3.connect(old)) as copy:
        now.backup(copy)
    assert "does not have what was removed" in said()[0]
    assert removed(opened, 2) == 10
    assert said() == []
    with closing(sqlite3.connect(opened.writer.path)) as now:
        now.execute("UPDATE opening_balances SET posted = posted + 1 WHERE account = 'A'")
        now.commit()
    assert "A: what was removed is summed as" in said()[0]


def test_books_with_rows_removed_open_again_and_are_guarded(opened, tmp_path):
    """The whole of a start: audit, guard, balances in memory."""
    removed(opened, 4)
    copy = tmp_path / "copy"
    shutil.copytree(opened.writer.path.parent, copy)
    directory = DataDir(copy)
    with directory.locked(), open_books(directory, HandClock(END), Limits()) as again:
        assert again.balances.balance("A", END) == opened.balances.balance("A", END)
        version = again.writer.call(lambda c: prices.publish(c, "m", TARIFF, END))
        charge(again, version, END)
        assert found(again) == []
