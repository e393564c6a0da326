"""When old rows are removed, and what follows from a store that fails."""

import asyncio
import dataclasses
import logging

import pytest

from appliance.core.errors import StorageFull
from appliance.ledger import retention, retention_schedule
from appliance.ledger.retention_schedule import RetentionSchedule
from tests.appliance import HandClock
from tests.unit.ledger.test_retention import DAYS, END, opened  # noqa: F401 - a fixture


@pytest.fixture
def books(opened, monkeypatch):  # noqa: F811 - the fixture
    monkeypatch.setattr(retention_schedule, "PAUSE_S", 0)
    return dataclasses.replace(opened, clock=HandClock(END))


def left(books):
    return books.writer.call(lambda c: c.execute("SELECT COUNT(*) FROM transfers").fetchone()[0])


def test_whole_days_are_kept_and_the_rest_goes_in_parts(books, monkeypatch, caplog):
    monkeypatch.setattr(retention, "ROWS_MAX", 7)
    with caplog.at_level(logging.INFO):
        asyncio.run(RetentionSchedule(books, keep_days=3).once())
    assert left(books) == 5 * 3
    assert f"removed the rows of {1 + 5 * (DAYS - 3)} transfers" in caplog.text


def test_it_looks_again_every_hour_and_never_if_all_is_kept(books, monkeypatch):
    monkeypatch.setattr(retention_schedule, "EVERY_S", 0.001)
    watch, looks = RetentionSchedule(books, keep_days=3), []
    monkeypatch.setattr(watch, "once", lambda: asyncio.sleep(0, looks.append(1)))

    async def story():
        running = asyncio.create_task(watch.run())
        while len(looks) < 3:  # noqa: ASYNC110 - a timer makes it hold
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.wait_for(RetentionSchedule(books, keep_days=0).run(), 5)

    asyncio.run(asyncio.wait_for(story(), 30))
    assert left(books) == 1 + 5 * DAYS


@pytest.mark.parametrize("error", [StorageFull(), RuntimeError("odd")])
def test_an_error_is_logged_and_loses_nothing(books, monkeypatch, caplog, error):
    async def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(books.writer, "run", fails)
        asyncio.run(RetentionSchedule(books, keep_days=3).once())
    assert "old calls are not removed yet" in caplog.text
    assert left(books) == 1 + 5 * DAYS
