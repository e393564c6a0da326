"""The hourly audit: it comes again, closes books that do not agree, and outlives what passes."""

import asyncio
import sqlite3
from contextlib import closing, suppress

import pytest

from appliance.core.limits import Limits
from appliance.ledger import audit_schedule as module
from appliance.ledger.audit_schedule import AuditSchedule
from appliance.ledger.books import open_books
from appliance.store.datadir import DataDir
from tests.appliance import HandClock


@pytest.fixture
def opened(tmp_path):
    directory = DataDir(tmp_path / "data")
    with (
        directory.locked(),
        open_books(directory, HandClock(), Limits(reserve_bytes=4096)) as books,
    ):
        yield directory, books


def tamper(directory):
    with closing(sqlite3.connect(directory.database)) as other:
        other.execute("UPDATE accounts SET posted = 5 WHERE id = 'revenue'")
        other.commit()


def test_books_that_agree_stay_open_and_are_looked_at_again(opened, monkeypatch):
    directory, books = opened
    monkeypatch.setattr(module, "EVERY_S", 0.001)
    watch, seen = AuditSchedule(directory, books), []
    once = watch.once
    monkeypatch.setattr(watch, "once", lambda: (seen.append(1), once())[1])

    async def story():
        running = asyncio.create_task(watch.run())
        async with asyncio.timeout(30):
            while len(seen) < 3:  # noqa: ASYNC110 - a timer makes it hold
                await asyncio.sleep(0.001)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(story())
    assert not books.writer.broken.done()


def test_books_that_do_not_agree_are_closed_with_the_first_reason(opened, caplog):
    directory, books = opened
    tamper(directory)
    asyncio.run(AuditSchedule(directory, books).once())
    assert "the books do not agree (the accounts sum to" in books.writer.broken.result()
    assert "revenue: its balance is 5, its transfers say 0" in caplog.text


def test_a_database_that_cannot_be_read_now_is_said_and_tried_again(opened, caplog, monkeypatch):
    directory, books = opened
    watch = AuditSchedule(directory, books)
    monkeypatch.setattr(
        module, "reading", lambda _: (_ for _ in ()).throw(module.StoreFailed("busy"))
    )
    asyncio.run(watch.once())
    assert "the books could not be audited: busy" in caplog.text
    assert not books.writer.broken.done()


def test_any_error_of_an_audit_is_said_and_the_schedule_goes_on(opened, caplog, monkeypatch):
    directory, books = opened
    watch = AuditSchedule(directory, books)
    monkeypatch.setattr(
        module.audit, "problems", lambda _: (_ for _ in ()).throw(RuntimeError("a bug"))
    )
    asyncio.run(watch.once())
    assert "a bug" in caplog.text
    assert books.audited.error == "RuntimeError('a bug')"
    assert not books.writer.broken.done()
    monkeypatch.undo()
    asyncio.run(watch.once())
    assert books.audited.error is None
    assert books.audited.whole_us == books.clock.wall_us()
