"""Holds end once, whatever becomes of their callers; what cannot be refunded now is later."""

import asyncio
import logging

import pytest

from appliance.core.errors import HoldNotOpen, StoreFailed
from appliance.ledger import holds as module
from appliance.ledger.entry import Charge, Hold, Purchase
from appliance.ledger.holds import Holds

HOLD = Hold(7, Purchase("A", "req", "m", "realtime", 1, 5, 1, None))


class Books:
    """A ledger whose settlement waits for `go_on`, and whose refunds fail so many times."""

    def __init__(self, *, fails=0, settles=True):
        self.fails, self.settles = fails, settles
        self.go_on, self.begun = asyncio.Event(), asyncio.Event()
        self.refunded, self.released = [], []

    async def settle(self, hold, _):
        self.begun.set()
        await self.go_on.wait()
        if not self.settles:
            raise StoreFailed("the disk is gone")
        return Charge(3, hold.amount)

    async def refund(self, seq):
        self.refunded.append(seq)
        if len(self.refunded) <= self.fails:
            raise StoreFailed("not now")

    def release(self, hold):
        if hold in self.released:
            raise HoldNotOpen(hold.id)
        self.released.append(hold)


async def left(books, holds):
    """Settle for a caller that leaves meanwhile."""
    calling = asyncio.create_task(holds.settle(HOLD, None))
    await books.begun.wait()
    calling.cancel()
    await asyncio.sleep(0)
    assert not calling.done()  # it owes something still
    books.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await calling


def test_a_charge_whose_caller_left_is_refunded_as_often_as_it_takes_and_no_oftener(monkeypatch):
    monkeypatch.setattr(module, "REFUND_PAUSES_S", (0, 0, 0, 0))

    async def story():
        books = Books(fails=3)
        holds = Holds(books)
        await left(books, holds)
        assert repr(holds) == "<Holds [1 to be given back]>"
        while holds._retrying:  # noqa: ASYNC110 - the background rings no bell
            await asyncio.sleep(0)
        assert books.refunded == [3, 3, 3, 3]
        assert repr(holds) == "<Holds [0 to be given back]>"
        assert books.released == []

    asyncio.run(asyncio.wait_for(story(), 30))


def test_after_an_hour_of_tries_it_is_left_to_the_next_start(monkeypatch, caplog):
    assert 3_000 < sum(module.REFUND_PAUSES_S) < 4_000
    monkeypatch.setattr(module, "REFUND_PAUSES_S", (0, 0))

    async def story():
        books = Books(fails=100)
        holds = Holds(books)
        await left(books, holds)
        while holds._retrying:  # noqa: ASYNC110 - the background rings no bell
            await asyncio.sleep(0)
        assert len(books.refunded) == 3

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(story(), 30))
    assert caplog.text.count("charge 3 ") == 3


def test_a_settlement_that_fails_gives_the_hold_back_whether_its_caller_stayed_or_left():
    async def story():
        books = Books(settles=False)
        books.go_on.set()
        with pytest.raises(StoreFailed):
            await Holds(books).settle(HOLD, None)
        assert books.released == [HOLD]
        gone = Books(settles=False)
        await left(gone, Holds(gone))
        assert gone.released == [HOLD]
        assert books.refunded == gone.refunded == []

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_hold_that_is_released_twice_is_logged_and_no_error(caplog):
    async def story():
        books = Books()
        holds = Holds(books)
        holds.release(HOLD)
        holds.release(HOLD)
        assert books.released == [HOLD]

    asyncio.run(story())
    assert "hold 7 was resolved twice" in caplog.text
