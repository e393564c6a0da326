"""The sign of life: said while the server lives, and that it computes only when it does."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from appliance.core.errors import LedgerUnavailable, StorageFull
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.heartbeat import LOOKS, Heartbeat
from tests.unit.scheduler.test_engine import Stepped, bounded, running, turned

EVERY_S = 0.001


class Signs:
    """What was said, and a ledger that the test can stop."""

    def __init__(self):
        self.alive = self.well = 0
        self.error = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def writer(self):
        await self.answers.wait()
        if self.error is not None:
            raise self.error

    def say_alive(self):
        self.alive += 1

    def say_well(self):
        self.well += 1


@asynccontextmanager
async def beating(signs, *engines):
    beat = Heartbeat(
        lambda: engines, signs.writer, alive=signs.say_alive, well=signs.say_well, every_s=EVERY_S
    )
    task = asyncio.create_task(beat.run())
    try:
        yield beat
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def beats(signs, more):
    """Return after so many more beats."""
    until = signs.alive + more
    async with asyncio.timeout(20):
        while signs.alive < until:  # noqa: ASYNC110 - it counts beats, which are timed
            await asyncio.sleep(EVERY_S)


def test_an_engine_that_hangs_is_told_from_a_server_that_lives():
    async def story():
        signs, backend = Signs(), Stepped()
        async with running(backend) as engine, beating(signs, engine):
            await beats(signs, 3)
            assert signs.well == 1, "an engine that was never asked is well at the first look"
            await bounded(backend.begins())
            await beats(signs, 3 * LOOKS)
            assert signs.well == 1, "our token was given to it and is not computed"
            backend.free()
            await beats(signs, 3 * LOOKS)
            assert signs.well > 1

    asyncio.run(story())


def test_each_probe_is_really_computed_though_vectors_are_remembered():
    async def story():
        signs, backend = Signs(), Stepped()
        backend.free()
        async with running(backend, cache=VectorCache(10_000_000)) as engine:
            async with beating(signs, engine):
                await beats(signs, 4 * LOOKS)
            assert signs.well >= 3
            assert engine.counters.cached == 0
            assert engine.counters.batches >= 2
            assert engine.counters.tokens == engine.counters.batches

    asyncio.run(story())


def test_an_engine_that_others_keep_busy_is_not_asked():
    async def story():
        signs, backend = Signs(), Stepped()
        backend.free()
        async with running(backend) as engine, beating(signs, engine) as beat:
            for _ in range(3):
                before = engine.counters.batches
                await bounded(engine.submit([beat._probe(engine)], key="someone").result())
                assert engine.counters.batches == before + 1
                beat._batches = {engine.number: before}
                await bounded(beat.look())
                assert engine.counters.batches == before + 1

    asyncio.run(story())


def test_an_engine_that_dies_meanwhile_is_left_to_whoever_loads_it_again():
    async def story():
        signs, backend = Signs(), Stepped()
        async with running(backend) as engine, beating(signs, engine):
            await bounded(backend.begins())
            backend.error = RuntimeError("dead")
            backend.free()
            await turned(lambda: not engine.is_usable)
            await beats(signs, 2 * LOOKS)
            assert signs.alive > 0
            assert signs.well >= 1

    asyncio.run(story())


@pytest.mark.parametrize("error", [StorageFull(), LedgerUnavailable("closed")])
def test_books_that_refuse_have_answered_and_books_that_hang_have_not(error):
    async def story():
        signs = Signs()
        signs.error = error
        async with beating(signs):
            await beats(signs, 3)
            signs.answers.clear()
            await asyncio.sleep(5 * EVERY_S)
            before = signs.alive
            await asyncio.sleep(20 * EVERY_S)
            assert signs.alive == before
            signs.answers.set()
            await beats(signs, 3)

    asyncio.run(story())
