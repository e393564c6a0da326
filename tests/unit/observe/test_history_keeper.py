import asyncio

import pytest

from appliance.core.errors import StorageFull
from appliance.core.tally import Tally
from appliance.observe import history_keeper as module
from appliance.observe.history import History
from appliance.observe.history_keeper import ROWS_MAX, HistoryKeeper
from tests.appliance import HandClock


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0.001)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


class Store:
    """Takes rows, unless it fails."""

    def __init__(self):
        self.batches = []
        self.surplus = 3
        self.error = None
        self.trimmed = []
        self.looked = asyncio.Event()

    async def add(self, rows):
        if self.error:
            raise self.error
        self.batches.append(rows)

    async def trim(self, now):
        self.trimmed.append(now)
        self.looked.set()
        self.surplus = max(0, self.surplus - 2)
        return self.surplus


def counted(models, minutes=1):
    clock = HandClock()
    history = History(clock)
    for _ in range(minutes):
        for number in range(models):
            history.add(f"m{number}", Tally(calls=1))
        clock.advance(60)
    return history


def test_minutes_are_written_in_bounded_batches_and_rows_removed_until_none_are_too_many():
    history, store = counted(models=120, minutes=2), Store()
    asyncio.run(HistoryKeeper(history, store).once())
    assert [len(batch) for batch in store.batches] == [ROWS_MAX, ROWS_MAX, 4]
    assert len({(row.at, row.model) for batch in store.batches for row in batch}) == 104
    assert store.trimmed == [None, None]
    assert history.take(1) == []


def test_a_full_disk_is_said_once_and_nothing_is_lost_when_there_is_room_again(caplog):
    history, store = counted(models=2), Store()
    keeper = HistoryKeeper(history, store)
    store.error = StorageFull()
    for _ in range(3):
        asyncio.run(keeper.once())
    assert caplog.text.count("not written for now") == 1
    store.error = None
    asyncio.run(keeper.once())
    assert [row.model for batch in store.batches for row in batch] == ["", "m0", "m1"]
    store.error = StorageFull()
    history.add("m0", Tally(calls=1))
    history.close_minute()
    asyncio.run(keeper.once())
    assert caplog.text.count("not written for now") == 2


def test_an_unforeseen_error_does_not_end_it(caplog):
    history, store = counted(models=1), Store()
    store.error = ValueError("unforeseen")
    asyncio.run(HistoryKeeper(history, store).once())
    assert "unforeseen" in caplog.text


def test_the_minute_that_runs_is_written_when_the_server_ends():
    async def story():
        clock = HandClock()
        history, store = History(clock), Store()
        history.add("m", Tally(calls=1))
        running = asyncio.create_task(HistoryKeeper(history, store).run())
        await store.looked.wait()
        assert store.batches == []
        running.cancel()
        await asyncio.wait((running,))
        assert running.cancelled()
        [batch] = store.batches
        assert [row.model for row in batch] == ["", "m"]

    asyncio.run(story())


def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(monkeypatch, caplog):
    monkeypatch.setattr(module, "LAST_S", 0.01)

    async def story():
        history, store = History(HandClock()), Store()
        history.add("m", Tally(calls=1))

        async def hangs(_):
            await asyncio.Event().wait()

        running = asyncio.create_task(HistoryKeeper(history, store).run())
        await store.looked.wait()
        store.add = hangs
        running.cancel()
        await asyncio.wait((running,))
        assert running.cancelled()

    asyncio.run(story())
    assert "the last minute of the history is not written" in caplog.text
