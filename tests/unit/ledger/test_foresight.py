"""What the ledger may say about a hold before the books have answered."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from appliance.core.errors import ApplianceError
from appliance.core.units import Picocredits, picocredits
from appliance.ledger.entry import Purchase
from appliance.ledger.ledger import Ledger
from tests.appliance import bench


@asynccontextmanager
async def ledger_of(tmp_path, **order):
    async with bench(tmp_path / "data", preload=False) as it:
        key = await it.mint(**order)
        yield Ledger(it.books.writer, it.clock), key.id


def purchase(key_id, amount, budget=None):
    return Purchase(
        key_id=key_id, request_id="r", model="m", tier="realtime", units=1,
        amount=Picocredits(amount), daily_budget=budget,
    )  # fmt: skip


def test_a_key_that_the_books_were_not_asked_about_is_not_sure(tmp_path):
    async def story():
        async with ledger_of(tmp_path, credit="1") as (ledger, key):
            assert not ledger.surely_covers(purchase(key, 1))
            await ledger.release(await ledger.hold(purchase(key, 1)))
            assert ledger.surely_covers(purchase(key, 1))

    asyncio.run(story())


def test_an_unlimited_key_is_sure_and_its_budget_is_not(tmp_path):
    async def story():
        async with ledger_of(tmp_path, credit="unlimited") as (ledger, key):
            await ledger.settle(await ledger.hold(purchase(key, 60)))
            assert ledger.surely_covers(purchase(key, 10**15))
            assert ledger.surely_covers(purchase(key, 40, budget=100))
            assert not ledger.surely_covers(purchase(key, 41, budget=100))

    asyncio.run(story())


def test_what_was_asked_for_and_not_answered_counts(tmp_path):
    async def story():
        async with ledger_of(tmp_path, credit="1") as (ledger, key):
            half = int(picocredits("0.5"))
            await ledger.release(await ledger.hold(purchase(key, 1)))
            asked = [asyncio.create_task(ledger.hold(purchase(key, half))) for _ in range(2)]
            await asyncio.sleep(0)
            assert not ledger.surely_covers(purchase(key, 1))
            first, second = await asyncio.gather(*asked)
            assert not ledger.surely_covers(purchase(key, 1))
            await ledger.release(first)
            await ledger.settle(second)
            assert ledger.surely_covers(purchase(key, half))
            assert not ledger.surely_covers(purchase(key, half + 1))

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(5))
def test_what_is_sure_is_never_refused(tmp_path, seed):
    """Random holds, settlements and releases, many at once, near the end of the money."""
    chance = random.Random(seed)

    async def call(ledger, key):
        wanted = purchase(key, chance.randrange(1, 400), budget=chance.choice([None, 9_000]))
        sure = ledger.surely_covers(wanted)
        try:
            hold = await ledger.hold(wanted)
        except ApplianceError:
            assert not sure
            return False
        await asyncio.sleep(chance.choice([0, 0.001]))
        await (ledger.settle if chance.random() < 0.7 else ledger.release)(hold)
        return sure

    async def story():
        async with ledger_of(tmp_path, credit="0.00000001") as (ledger, key):  # 10,000
            seen = []
            for _ in range(20):
                seen += await asyncio.gather(*(call(ledger, key) for _ in range(10)))
            assert True in seen
            assert False in seen

    asyncio.run(story())
