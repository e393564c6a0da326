import asyncio
import sqlite3
from contextlib import closing, contextmanager

import pytest

from appliance.core.errors import StorageFull
from appliance.core.limits import Limits
from appliance.core.tally import HOURS_KEPT, MINUTES_KEPT, HourRow, MinuteRow, Past, Tally
from appliance.ledger.books import open_books
from appliance.store import history as module
from appliance.store.datadir import DataDir
from appliance.store.history import StoredHistory
from tests.appliance import HandClock


@contextmanager
def stored(tmp_path):
    directory = DataDir(tmp_path / "data")
    with directory.locked(), open_books(directory, HandClock(), Limits()) as books:
        yield StoredHistory(books.writer), books.writer


def count(path, table):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT COUNT(*), MIN(at), MAX(at) FROM {table}").fetchone()


def test_minutes_are_added_to_their_rows_and_hours_know_their_highest_minute(tmp_path):
    async def story(it):
        await it.add([MinuteRow(120, "", Tally(1, 20, 3, 4, 5))])
        await it.add(
            [MinuteRow(121, "", Tally(2, 10, 0, 0, 9)), MinuteRow(121, "m", Tally(1))],
        )
        await it.add([MinuteRow(121, "", Tally(2, 0, 0, 0, 0))])

    with stored(tmp_path) as (it, _):
        asyncio.run(story(it))
    with stored(tmp_path) as (it, _):
        assert it.read() == Past(
            [
                MinuteRow(120, "", Tally(1, 20, 3, 4, 5)),
                MinuteRow(121, "", Tally(4, 10, 0, 0, 9)),
                MinuteRow(121, "m", Tally(1)),
            ],
            [
                HourRow(2, "", Tally(5, 30, 3, 4, 14), Tally(2, 20, 3, 4, 9)),
                HourRow(2, "m", Tally(1), Tally(1)),
            ],
        )


def test_each_model_keeps_an_hour_of_minutes_and_thirty_days_of_hours(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REMOVED_MAX", 1000)

    async def story(it):
        rows = [MinuteRow(n * 60, model, Tally(1)) for n in range(800) for model in ("", "a", "b")]
        await it.add(rows)
        assert await it.trim(None) > 0
        while await it.trim(None):
            pass

    with stored(tmp_path) as (it, writer):
        asyncio.run(story(it))
        assert count(writer.path, "history_hours") == (3 * HOURS_KEPT, 800 - HOURS_KEPT, 799)
        assert count(writer.path, "history_minutes")[0] == 3 * MINUTES_KEPT
        past = it.read()
        assert (len(past.minutes), len(past.hours)) == (3 * MINUTES_KEPT, 3 * HOURS_KEPT)


def test_what_is_too_old_or_ahead_of_the_clock_goes_once_the_clock_is_trusted(tmp_path):
    async def story(it):
        await it.add([MinuteRow(at, "", Tally(1)) for at in (1, 100_000, 100_030, 900_000)])
        assert await it.trim(None) == 0
        assert await it.trim(100_030) == 4
        assert await it.trim(100_030) == 0

    with stored(tmp_path) as (it, writer):
        asyncio.run(story(it))
        assert count(writer.path, "history_minutes") == (2, 100_000, 100_030)
        assert count(writer.path, "history_hours") == (2, 1666, 1667)


def test_only_some_rows_are_removed_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REMOVED_MAX", 10)

    async def story(it):
        await it.add([MinuteRow(n, "", Tally(1)) for n in range(100)])
        assert [await it.trim(None) for _ in range(5)] == [10, 10, 10, 9, 0]

    with stored(tmp_path) as (it, _):
        asyncio.run(story(it))


def test_a_full_disk_refuses_rows_and_what_cannot_be_read_begins_anew(tmp_path, caplog):
    async def story(it, writer):
        writer._disk.is_full = True
        writer._disk._reserve.take_back = lambda: False
        with pytest.raises(StorageFull):
            await it.add([MinuteRow(1, "", Tally(1))])

    with stored(tmp_path) as (it, writer):
        asyncio.run(story(it, writer))
        assert it.read() == Past([], [])
        writer.path = tmp_path / "nothing.db"
        assert it.read() == Past()
    assert "begins anew" in caplog.text
