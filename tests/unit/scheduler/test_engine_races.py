"""What happens at the same moment: a death, a close or a late call between two steps of another.

Each story holds one thread at a known step until another has done its own. At the end of every one
stands the same promise: a call that was taken ends.
"""

import asyncio
import logging
import random
import threading
import time

import numpy as np
import pytest

from appliance.core.errors import ApplianceError, EngineDied, EngineRestarting, QueueFull
from appliance.engine.fake import FakeBackend
from appliance.scheduler import worker as worker_module
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.counters import Counters
from appliance.scheduler.queue import WorkQueue
from tests.unit.scheduler.test_engine import (
    FACTS,
    LIMITS,
    POISON,
    Stepped,
    SteppedWeights,
    all_of,
    awaited,
    bounded,
    cancelled,
    engine_of,
    plugged,
    running,
    sequence,
    submit,
    texts,
    tuned,
    turned,
)


class Held(logging.Handler):
    """Holds the thread that logs a death until it is let go."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def emit(self, _record):
        self.reached.set()
        assert self.go_on.wait(20)


@pytest.fixture
def death():
    log, held = logging.getLogger("gigarouter.engine"), Held()
    log.addHandler(held)
    yield held
    held.go_on.set()
    log.removeHandler(held)


async def done(event):
    assert await asyncio.to_thread(event.wait, 20)


def test_a_call_that_takes_over_a_text_while_the_engine_dies_ends_with_it(death):
    """The text's first caller has left, so its worker left it out; it may not be lost over that."""

    async def story():
        dies, lives = Stepped(), Stepped()
        weights = SteppedWeights(dies, lives)
        engine = engine_of(weights, tuned(2))
        await bounded(engine.loaded)
        await turned(lambda: engine.workers[0] == 2)
        await plugged(engine, dies, lives)
        leaver = await awaited(submit(engine, 1, first=5, key="leaver"))
        guilty = await awaited(engine.submit([sequence(POISON)], key="guilty"))
        lives.steps.release()  # the text and the poison are one batch of the one that lives
        await lives.begins()
        await cancelled(leaver)
        lives.steps.release()  # refused: each is computed alone, and nobody waits for the text
        await lives.begins()
        heir = await awaited(submit(engine, 1, first=5, key="heir"))
        dies.error = EngineDied("told to")
        dies.steps.release()
        await done(death.reached)
        lives.steps.release()
        await turned(lambda: engine.workers[1] == 0 or lives.closed)
        death.go_on.set()
        with pytest.raises(EngineRestarting):
            await bounded(heir)
        with pytest.raises(ApplianceError):
            await bounded(guilty)
        await asyncio.to_thread(engine.close)
        assert weights.wrongs == []

    asyncio.run(story())


def test_a_call_that_came_while_the_engine_dies_ends_with_it(death):
    async def story():
        backend = Stepped()
        engine = engine_of(SteppedWeights(backend), tuned(1))
        await bounded(engine.loaded)
        [plug] = await plugged(engine, backend)
        waiting = await awaited(submit(engine, 3))
        backend.error = EngineDied("told to")
        backend.steps.release()
        await done(death.reached)
        with pytest.raises(EngineRestarting):
            submit(engine, 1)
        death.go_on.set()
        for each in (plug.result(), waiting):
            with pytest.raises(EngineRestarting):
                await bounded(each)
        await asyncio.to_thread(engine.close)

    asyncio.run(story())


class Seam:
    """A lock that does something right after a thread has left it."""

    def __init__(self, lock, then):
        self.lock, self.then, self.thread = lock, then, threading.get_ident()
        self.depth = 0

    def __enter__(self):
        self.lock.__enter__()
        self.depth += threading.get_ident() == self.thread

    def __exit__(self, *error):
        mine = threading.get_ident() == self.thread
        self.depth -= mine
        self.lock.__exit__(*error)
        if mine and not self.depth and self.then is not None:
            then, self.then = self.then, None
            then()

    def __getattr__(self, name):
        return getattr(self.lock, name)


def test_a_call_that_is_computed_before_submit_returns_is_finished_once():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as engine:
            clock, lock = engine._clock, engine._changed
            clock.advance(1)
            finished = []

            def compute_all():
                engine._changed = lock
                deadline = time.monotonic() + 60
                while not engine.counters.batches or engine.workers[1]:
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
                clock.advance(7)

            engine._changed = Seam(lock, compute_all)
            job = submit(engine, 1)
            finished.append(job.finished_ns)
            await all_of([job])
            assert clock.monotonic_ns() - job.finished_ns == 7_000_000_000

    asyncio.run(story())


def test_the_death_of_one_worker_leaves_no_debt_when_another_ends_its_batch():
    async def story():
        dies, lives = Stepped(), Stepped()
        engine = engine_of(SteppedWeights(dies, lives), tuned(2))
        await bounded(engine.loaded)
        await turned(lambda: engine.workers[0] == 2)
        jobs = await plugged(engine, dies, lives)
        dies.error = EngineDied("told to")
        dies.steps.release()
        for job in jobs:
            with pytest.raises(EngineRestarting):
                await bounded(job.result())
        assert engine.tokens_waiting == 3
        lives.free()
        await asyncio.to_thread(engine.close)
        assert (engine.tokens_waiting, engine.workers) == (0, (0, 0))
        assert all(job.failed for job in jobs)

    asyncio.run(story())


class Full(VectorCache):
    """Finds no memory for the second row."""

    def __init__(self):
        super().__init__(1_000_000)
        self.kept = 0

    def keep(self, load, digest, row):
        self.kept += 1
        if self.kept == 2:
            raise MemoryError
        super().keep(load, digest, row)


def test_results_that_cannot_be_handed_over_end_every_call_of_their_batch():
    async def story():
        backend = Stepped()
        engine = engine_of(SteppedWeights(backend), tuned(1), cache=Full())
        await bounded(engine.loaded)
        backend.free()
        jobs = [submit(engine, 1, first=first) for first in (1, 2, 3)]
        ended = await bounded(asyncio.gather(*(j.result() for j in jobs), return_exceptions=True))
        assert all(isinstance(each, np.ndarray | EngineRestarting) for each in ended)
        assert any(isinstance(each, EngineRestarting) for each in ended)
        await asyncio.to_thread(engine.close)

    asyncio.run(story())


class Unhashable(VectorCache):
    """Fails the lookup of the second text of a call."""

    def __init__(self):
        super().__init__(0)
        self.looked = 0

    def find(self, load, digest):
        self.looked += 1
        if self.looked == 3:
            raise MemoryError
        return super().find(load, digest)


def test_a_call_that_could_not_be_taken_leaves_no_text_that_others_would_wait_for():
    async def story():
        backend = Stepped()
        engine = engine_of(SteppedWeights(backend), tuned(1), cache=Unhashable())
        await bounded(engine.loaded)
        backend.free()
        await all_of([submit(engine, 1, first=9)])
        with pytest.raises(MemoryError):
            submit(engine, 2)
        await all_of([submit(engine, 2)])
        await asyncio.to_thread(engine.close)

    asyncio.run(story())


def test_a_thread_that_cannot_be_started_leaves_the_engine_with_a_worker_less(monkeypatch):
    start = threading.Thread.start

    def start_or_not(thread):
        if thread.name.endswith("/1"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(worker_module.threading.Thread, "start", start_or_not)

    async def story():
        backend = Stepped()
        weights = SteppedWeights(backend, Stepped())
        engine = engine_of(weights, tuned(2))
        await bounded(engine.loaded)
        backend.free()
        await all_of([submit(engine, 3)])
        assert engine.workers[0] == 1
        await bounded(asyncio.to_thread(engine.close))
        assert weights.closed

    asyncio.run(story())


class Stuck(Stepped):
    """Cannot be closed."""

    def close(self):
        super().close()
        raise RuntimeError("no")


def test_a_backend_that_cannot_be_closed_keeps_no_call_and_no_weights():
    async def story():
        backend = Stuck()
        weights = SteppedWeights(backend)
        engine = engine_of(weights, tuned(1))
        await bounded(engine.loaded)
        [plug] = await plugged(engine, backend)
        waiting = await awaited(submit(engine, 3))
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await turned(lambda: engine._closing)
        backend.free()
        await bounded(closing)
        await bounded(plug.result())
        with pytest.raises(EngineRestarting):
            await bounded(waiting)
        assert weights.closed

    asyncio.run(story())


# -- what other threads read --------------------------------------------------------------------


def test_counters_are_all_of_the_same_moment(monkeypatch):
    reached, go_on = threading.Event(), threading.Event()

    def add(counters, done, _elapsed_ns, *, workers):
        counters.batches += workers
        reached.set()
        go_on.wait(0.3)
        counters.tokens += done.tokens

    monkeypatch.setattr(Counters, "add", add)

    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            job = submit(engine, 1)
            backend.free()
            await done(reached)
            counters = engine.counters
            seen = (counters.batches, counters.tokens)
            go_on.set()
            assert seen == (1, 10)
            await all_of([job])
            assert seen == (1, 10)

    asyncio.run(story())


def test_tokens_on_their_way_into_a_batch_are_counted(monkeypatch):
    reached, go_on = threading.Event(), threading.Event()
    take = WorkQueue.take

    def take_slowly(queue, limits, *, idle):
        items = take(queue, limits, idle=idle)
        if items:
            reached.set()
            go_on.wait(0.3)
        return items

    monkeypatch.setattr(WorkQueue, "take", take_slowly)

    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            job = submit(engine, 1)
            await done(reached)
            seen = (engine.tokens_waiting, engine.workers)
            go_on.set()
            backend.free()
            await all_of([job])
            assert seen == (10, (1, 1))

    asyncio.run(story())


# -- any order ----------------------------------------------------------------------------------


class Unreliable(FakeBackend):
    """Computes after a moment; now and then refuses, and dies once its time has come."""

    def __init__(self, seed):
        super().__init__(FACTS, LIMITS)
        self.chance = random.Random(seed)
        self.dies_at = self.chance.choice([3, 8, 1_000])
        self.count = 0

    def compute(self, sequences, *, threads):
        self.count += 1
        time.sleep(self.chance.choice([0, 0, 0.0005]))
        if self.count >= self.dies_at:
            raise EngineDied("its time had come")
        self.refuse = self.chance.random() < 0.1
        return super().compute(sequences, threads=threads)


@pytest.mark.parametrize("seed", range(12))
def test_every_call_ends_whatever_is_cancelled_dies_or_closes(seed):
    async def story():
        chance = random.Random(seed)
        workers = chance.randint(1, 3)
        weights = SteppedWeights(*(Unreliable((seed, n).__hash__()) for n in range(workers)))
        engine = engine_of(weights, tuned(workers), queue_tokens_max=5_000)
        await bounded(engine.loaded)
        waiting, closing = [], None
        for step in range(150):
            if chance.random() < 0.8:
                try:
                    job = engine.submit(
                        texts(chance.randint(1, 4), first=chance.randint(1, 6)),
                        key=chance.choice("ab"),
                        is_batch=chance.random() < 0.2,
                    )
                except (QueueFull, EngineRestarting):
                    continue
                waiting.append(asyncio.create_task(job.result()))
            elif waiting:
                chance.choice(waiting).cancel()
            if step == 120 and chance.random() < 0.5:
                closing = asyncio.create_task(asyncio.to_thread(engine.close))
            if chance.random() < 0.4:
                await asyncio.sleep(0)
            assert engine.tokens_waiting >= 0
        ended = await bounded(asyncio.gather(*waiting, return_exceptions=True))
        for each in ended:
            assert isinstance(each, np.ndarray | ApplianceError | asyncio.CancelledError), each
        await bounded(closing or asyncio.to_thread(engine.close))
        assert weights.closed
        assert (len(engine._queue), engine.tokens_waiting, engine.workers) == (0, 0, (0, 0))
        assert weights.wrongs == []

    asyncio.run(story())
