import asyncio
import sqlite3

import pytest

from appliance.core.errors import StoreFailed
from appliance.ledger import delivery_acks
from appliance.ledger.delivery_acks import DeliveryAcks


class Store:
    """Takes marks, or fails; keeps them in a table of its own."""

    def __init__(self):
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("CREATE TABLE undelivered (seq INTEGER PRIMARY KEY)")
        self.connection.executemany("INSERT INTO undelivered VALUES (?)", [(n,) for n in range(9)])
        self.writes, self.failures = 0, 0
        self.error = StoreFailed("the disk is full")

    async def run(self, operation, *, durable):
        assert not durable
        self.writes += 1
        if self.failures:
            self.failures -= 1
            raise self.error
        return operation(self.connection)

    @property
    def left(self):
        return [seq for (seq,) in self.connection.execute("SELECT seq FROM undelivered")]


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(delivery_acks, "PAUSE_S", 0)
    monkeypatch.setattr(delivery_acks, "RETRY_S", 0)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a timer makes it hold
            await asyncio.sleep(0)


def test_marks_are_gathered_and_written_together(soon):
    async def story():
        store = Store()
        marks = DeliveryAcks(store)
        for seq in (1, 2, 3):
            marks.add(seq)
        assert repr(marks) == "<DeliveryAcks [3 waiting]>"
        await until(lambda: store.left == [0, 4, 5, 6, 7, 8])
        assert store.writes == 1
        marks.add(5)
        await until(lambda: store.left == [0, 4, 6, 7, 8])
        assert store.writes == 2

    asyncio.run(story())


def test_marks_that_could_not_be_written_are_tried_again_in_their_order(soon, caplog):
    async def story():
        store = Store()
        store.failures = 3
        marks = DeliveryAcks(store)
        marks.add(1)
        await until(lambda: store.writes >= 2)
        marks.add(2)
        await until(lambda: store.left == [0, 3, 4, 5, 6, 7, 8])
        assert store.failures == 0

    asyncio.run(story())
    assert "deliveries are not written yet: the disk is full" in caplog.text


def test_what_waits_is_written_at_the_end():
    async def story():
        store = Store()
        marks = DeliveryAcks(store)
        marks.add(7)
        await marks.close()
        assert store.left == [0, 1, 2, 3, 4, 5, 6, 8]
        await marks.close()
        assert store.writes == 1

    asyncio.run(story())


def test_the_end_waits_for_a_write_on_its_way(soon):
    async def story():
        store = Store()
        marks = DeliveryAcks(store)
        marks.add(7)
        await until(lambda: marks._writing is not None)
        marks.add(8)
        await marks.close()
        assert store.left == [0, 1, 2, 3, 4, 5, 6]

    asyncio.run(story())


def test_a_store_that_fails_is_left_alone_for_longer_and_one_that_works_is_not(monkeypatch):
    pauses = []
    monkeypatch.setattr(delivery_acks, "PAUSE_S", 0)
    monkeypatch.setattr(delivery_acks, "RETRY_S", 0.001)

    async def story():
        store = Store()
        marks = DeliveryAcks(store)
        wait = marks._wait
        monkeypatch.setattr(marks, "_wait", lambda seconds: (pauses.append(seconds), wait(seconds)))
        store.failures = 2
        marks.add(1)
        await until(lambda: 1 not in store.left)
        marks.add(2)
        await until(lambda: 2 not in store.left)

    asyncio.run(story())
    assert pauses == [0, 0.001, 0.001, 0]


def test_marks_outlive_an_error_of_any_kind(soon, caplog):
    async def story():
        store = Store()
        store.failures, store.error = 2, RuntimeError("a bug")
        marks = DeliveryAcks(store)
        marks.add(1)
        await until(lambda: store.left == [0, 2, 3, 4, 5, 6, 7, 8])
        await marks.close()

    asyncio.run(story())
    assert "a bug" in caplog.text
