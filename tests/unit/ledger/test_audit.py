"""Books that somebody tampered with, or a disk damaged, are not opened."""

import hashlib
import shutil
import sqlite3
from contextlib import closing
from decimal import Decimal

import pytest

from appliance.accounts.key import Key, KeyLimits
from appliance.core.clock import MICROSECONDS_PER_DAY
from appliance.core.errors import StoreFailed
from appliance.core.limits import Limits
from appliance.ledger import audit, books, delivery_acks, ledger, prices, rollback_guard
from appliance.ledger.books import open_books
from appliance.ledger.entry import Hold, IdempotencyKey, Purchase
from appliance.ledger.transfer import broken_links, read_balance
from appliance.pricing.tariff import Tariff
from appliance.store.datadir import DataDir
from tests.appliance import HandClock
from tests.money.audit import problems as recomputed

NOON = 20_000 * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2
TOMORROW = NOON + MICROSECONDS_PER_DAY
TARIFF = Tariff("embeddings", realtime=Decimal(1), batch=Decimal(1))


def key(name="A", *, unlimited=False):
    return Key(
        id=name,
        name=name,
        digest=hashlib.sha256(name.encode()).digest(),
        hint="h",
        unlimited=unlimited,
        limits=KeyLimits(),
        created_us=0,
        expires_us=None,
        revoked_us=None,
    )


def purchase(price, name="A", units=3):
    return Purchase(
        key_id=name,
        request_id="req",
        model="m",
        tier="realtime",
        units=units,
        each=TARIFF.each("realtime"),
        price=price,
        daily_budget=None,
    )


def settled(connection, price, *, at_us=NOON, units=3, idempotency_key=None):
    [(last,)] = connection.execute("SELECT COALESCE(MAX(hold_id), 0) FROM transfers")
    hold = Hold(last + 1, purchase(price, units=units))
    return ledger.settle_hold(connection, hold, at_us, idempotency_key)


@pytest.fixture
def directory(tmp_path):
    """Books with two grants, three charges of two days, one refund and nothing open."""
    made = DataDir(tmp_path / "data")

    def history(connection):
        price = prices.publish(connection, "m", TARIFF, NOON)
        for day in range(3):
            charge = settled(connection, price, at_us=NOON + day // 2 * MICROSECONDS_PER_DAY)
            if day != 1:
                delivery_acks.mark(connection, [charge.seq])
        ledger.refund(connection, charge.seq - 1, "refund", NOON + MICROSECONDS_PER_DAY)

    with made.locked(), open_books(made, HandClock(NOON), Limits()) as opened:
        opened.writer.call(books.mint(key(), 10**9, NOON))
        opened.writer.call(books.mint(key("U", unlimited=True), 0, NOON))
        opened.writer.call(history)
    return made


def fingerprint(directory):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.path.iterdir()
        # An index over the log is never data, and a log may be looked for and found empty.
        if path.is_file() and not path.name.endswith("-shm") and path.name != "lock"
        if path.stat().st_size
    }


def tamper(directory, *statements):
    with closing(sqlite3.connect(directory.database, isolation_level=None)) as connection:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement
        for _, text in triggers:
            connection.execute(text)
        return audit.problems(connection), audit.problems(connection, links=100)


def test_books_that_nobody_touched_agree(directory):
    with closing(sqlite3.connect(directory.database)) as connection:
        assert audit.problems(connection) == []
        assert recomputed(connection) == []
    with directory.locked(), open_books(directory, HandClock(NOON), Limits()) as opened:
        assert opened.recovered.refunded == 0


REFUSED = {
    "a charge made smaller": "UPDATE transfers SET amount = amount - 1 WHERE seq = 2",
    "a grant made larger, and its balances": (
        "UPDATE transfers SET amount = amount + 5 WHERE seq = 1",
        "UPDATE accounts SET posted = posted + 5 WHERE id = 'A'",
        "UPDATE accounts SET posted = posted - 5 WHERE id = 'issued'",
    ),
    "a charge moved to another account": "UPDATE transfers SET debit = 'U' WHERE seq = 2",
    "a charge moved to another hour": "UPDATE transfers SET at_us = at_us + 1 WHERE seq = 3",
    "another model": "UPDATE transfers SET model = 'n' WHERE seq = 3",
    "other units": "UPDATE transfers SET units = units + 1, each = 0, amount = 0 WHERE seq = 3",
    "a transfer that is gone from the middle": "DELETE FROM transfers WHERE seq = 3",
    "another hash": "UPDATE transfers SET hash = zeroblob(32) WHERE seq = 5",
    "a balance": "UPDATE accounts SET posted = posted + 1 WHERE id = 'A'",
    "two balances": (
        "UPDATE accounts SET posted = posted + 1 WHERE id = 'A'",
        "UPDATE accounts SET posted = posted - 1 WHERE id = 'revenue'",
    ),
}


@pytest.mark.parametrize("statements", REFUSED.values(), ids=REFUSED.keys())
def test_books_that_were_tampered_with_are_not_opened_and_not_changed(directory, statements):
    lines = (statements,) if isinstance(statements, str) else statements
    deep, shallow = tamper(directory, *lines)
    assert deep
    assert shallow
    before = fingerprint(directory)
    with (
        pytest.raises(StoreFailed, match=r"do not agree|lacks transfer") as refused,
        directory.locked(),
        open_books(directory, HandClock(NOON), Limits()),
    ):
        raise AssertionError
    assert "gigarouter restore" in refused.value.message
    assert fingerprint(directory) == before


DEEP = {
    "a sum of a day": "UPDATE usage_days SET units = units + 1 WHERE day = 20000",
    "a day that never was": (
        "INSERT INTO usage_days (day, account, model, tier, calls, units, amount)"
        " VALUES (1, 'A', 'm', 'batch', 1, 1, 1)"
    ),
    "a day that is gone": "DELETE FROM usage_days WHERE day = 20000",
    "what was spent today": "UPDATE accounts SET spent_today = spent_today + 1 WHERE id = 'A'",
}


@pytest.mark.parametrize("statement", DEEP.values(), ids=DEEP.keys())
def test_sums_that_were_tampered_with_are_found_by_the_whole_audit(directory, statement):
    deep, shallow = tamper(directory, statement)
    assert len(deep) == 1
    assert shallow == []


def test_a_refund_of_something_else_is_found(directory):
    deep, _ = tamper(directory, "UPDATE transfers SET refunds = 2 WHERE kind = 'refund'")
    assert any("is not what was written" in problem for problem in deep)
    deep, _ = tamper(directory, "UPDATE transfers SET refunds = 1 WHERE kind = 'refund'")
    assert any("refunds another charge" in problem for problem in deep)


def test_a_refund_out_of_another_account_than_the_charge_went_to_is_found(directory):
    deep, _ = tamper(directory, "UPDATE transfers SET debit = 'revenue-2' WHERE kind = 'refund'")
    assert any("refunds another charge" in problem for problem in deep)
    with closing(sqlite3.connect(directory.database)) as connection:
        assert any("gives back something else" in problem for problem in recomputed(connection))


def test_the_last_links_alone_can_be_asked(directory):
    tamper(directory, "UPDATE transfers SET at_us = 7 WHERE seq = 2")
    with closing(sqlite3.connect(directory.database)) as connection:
        assert list(broken_links(connection)) == [2]
        assert list(broken_links(connection, after=1)) == [2]
        assert list(broken_links(connection, after=2)) == []


def test_a_report_has_an_end(directory):
    with closing(sqlite3.connect(directory.database)) as connection:
        connection.execute("UPDATE accounts SET posted = posted + 1")
        assert 1 < len(audit.problems(connection)) <= audit.PROBLEMS_MAX


# -- the head -----------------------------------------------------------------------------------


def opened_or_refused(directory):
    try:
        with directory.locked(), open_books(directory, HandClock(NOON), Limits()):
            return "opened"
    except StoreFailed as refusal:
        return refusal.message


def test_an_older_copy_in_the_place_of_the_books_is_refused(directory):
    old = directory.path.with_name("old.db")
    shutil.copy(directory.database, old)
    with directory.locked(), open_books(directory, HandClock(NOON), Limits()) as opened:
        opened.writer.call(books.top_up("A", 1, NOON))
    shutil.copy(old, directory.database)
    before = fingerprint(directory)
    said = opened_or_refused(directory)
    assert "lacks transfer 6" in said
    assert "gigarouter restore" in said
    assert fingerprint(directory) == before


def test_books_that_are_gone_are_not_begun_anew_unasked(directory):
    directory.database.unlink()
    assert "is missing" in opened_or_refused(directory)
    assert not directory.database.exists()
    directory.rollback_guard.unlink()
    assert opened_or_refused(directory) == "opened"


def test_a_head_that_cannot_be_read_is_written_anew(directory):
    directory.rollback_guard.write_bytes(b"\xff" * 40)
    assert rollback_guard.read(directory.rollback_guard) is None
    with directory.locked(), open_books(directory, HandClock(NOON), Limits()) as opened:
        opened.writer.call(books.top_up("A", 1, NOON))
    found = rollback_guard.read(directory.rollback_guard)
    assert found is not None
    assert found.tip.seq == 6


def test_every_byte_of_the_head_counts(directory):
    content = directory.rollback_guard.read_bytes()
    assert rollback_guard.read(directory.rollback_guard) is not None
    for place in range(len(content) - 1):
        broken = bytearray(content)
        broken[place] ^= 1
        directory.rollback_guard.write_bytes(broken)
        assert rollback_guard.read(directory.rollback_guard) is None, place


def test_the_head_of_books_without_transfers_forgets_nothing(tmp_path):
    directory = DataDir(tmp_path / "new")
    assert opened_or_refused(directory) == "opened"
    assert opened_or_refused(directory) == "opened"
    directory.database.unlink()
    assert "is missing" in opened_or_refused(directory)


def test_a_clock_that_was_set_back_between_two_runs_is_not_followed(directory):
    with directory.locked(), open_books(directory, HandClock(NOON), Limits()) as opened:
        opened.writer.call(books.top_up("A", 1, NOON))
    for back_s, expected in ((3_600, 0), (24 * 3_600, 0), (26 * 3_600, 26 * 3_600)):
        clock = HandClock(NOON - back_s * 1_000_000)
        with directory.locked(), open_books(directory, clock, Limits()) as opened:
            assert NOON - opened.clock.wall_us() == expected * 1_000_000


def test_a_first_start_that_failed_does_not_pass_for_books_that_are_gone(tmp_path, monkeypatch):
    directory = DataDir(tmp_path / "new")

    def fails(*_, **__):
        raise StoreFailed("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("appliance.store.writer.connect", fails)
        assert opened_or_refused(directory) == "the disk is full"
    assert not directory.rollback_guard.exists()
    assert opened_or_refused(directory) == "opened"
    assert directory.rollback_guard.exists()


# -- a start ------------------------------------------------------------------------------------


def test_what_was_not_delivered_is_refunded_at_the_start_and_may_be_sent_again(directory):
    repeat = IdempotencyKey(b"t" * 32, b"f" * 32)

    def cut_off(connection):
        price = prices.publish(connection, "m", TARIFF, NOON)
        settled(connection, price, at_us=TOMORROW, idempotency_key=repeat)

    with directory.locked(), open_books(directory, HandClock(TOMORROW), Limits()) as opened:
        before = opened.writer.call(lambda c: read_balance(c, "A", TOMORROW))
        opened.writer.call(cut_off)
    with directory.locked(), open_books(directory, HandClock(TOMORROW), Limits()) as opened:
        assert opened.recovered.refunded == 1
        after = opened.writer.call(lambda c: read_balance(c, "A", TOMORROW))
        assert after == before
        kinds = opened.writer.call(
            lambda c: c.execute("SELECT kind FROM transfers ORDER BY seq DESC LIMIT 2").fetchall()
        )
        assert kinds == [("crash_refund",), ("charge",)]
        assert opened.writer.call(lambda c: c.execute("SELECT * FROM repeats").fetchall()) == []
        assert opened.writer.call(recomputed) == []
