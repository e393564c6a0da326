"""An engine over fake backends that compute when they are told to."""

import asyncio
import logging
import threading
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from appliance.core.errors import (
    EngineRestarting,
    InferenceFailed,
    LoadFailed,
    QueueFull,
)
from appliance.engine.backend import EngineLimits, ModelFacts
from appliance.engine.fake import FakeBackend, FakeWeights
from appliance.engine.loader import LoadedModel
from appliance.engine.tuning import default_tuning
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.engine import Engine
from appliance.sequences.sequence import TokenSequence
from tests.appliance import HandClock

FACTS = ModelFacts(vocabulary=65_000, width=4, tokens_max=512, description="fake")
LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
POISON, PLUG = 60_666, 64_999


class Stepped(FakeBackend):
    """Computes one batch for each step that it is given; refuses batches with the poison token."""

    def __init__(self, facts=FACTS, limits=LIMITS):
        super().__init__(facts, limits)
        self.entered = threading.Semaphore(0)
        self.steps = threading.Semaphore(0)
        self.is_free = False
        self.touched_by = Counter()
        self.bins = []
        """The first token of each sequence of each batch that was computed."""
        self.error = None

    def compute(self, sequences, *, threads):
        self.touched_by[threading.get_ident()] += 1
        self.entered.release()
        if not self.is_free:
            self.steps.acquire(timeout=20)
        if self.error is not None:
            raise self.error
        if any(POISON in sequence.tokens for sequence in sequences):
            raise InferenceFailed("poison")
        matrix = super().compute(sequences, threads=threads)
        self.bins.append([int(sequence.tokens[0]) for sequence in sequences])
        return matrix

    def close(self):
        self.touched_by[threading.get_ident()] += 1
        super().close()

    def _row(self, tokens):
        tokens = tokens.astype(np.float32)
        return np.array([tokens[0], len(tokens), tokens.sum(), tokens[-1]], np.float32)

    @property
    def tokens(self):
        """How often each first token was computed."""
        return Counter(token for each in self.bins for token in each)

    async def begins(self):
        """Return once a worker has given it a batch."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=20)

    def free(self):
        """Compute everything from now on without waiting."""
        self.is_free = True
        self.steps.release()


class SteppedWeights(FakeWeights):
    """Opens each backend when its gate is set; an exception in a backend's place is raised."""

    def __init__(self, *backends, facts=FACTS, limits=LIMITS):
        super().__init__(facts, limits, backends)
        self.backends = backends
        self.gates = [threading.Event() for _ in backends]
        for gate in self.gates:
            gate.set()
        self.opening = threading.Semaphore(0)
        self.limits_asked = []
        self.flash_asked = []
        self.wrongs = []
        """What would have been a use of freed memory."""
        self._lock = threading.Lock()

    def open_backend(self, limits, *, flash_attention):
        with self._lock:
            index = len(self.limits_asked)
            self.limits_asked.append(limits)
            self.flash_asked.append(flash_attention)
            backend = self.backends[index]
        self.opening.release()
        assert self.gates[index].wait(20)
        if self.closed:
            self.wrongs.append(f"backend {index} was opened after the weights were freed")
        if isinstance(backend, Exception):
            raise backend
        backend.limits = limits
        return backend

    def close(self):
        computing = [each for each in self.backends if isinstance(each, FakeBackend)]
        opened = computing[: len(self.limits_asked)]
        if not all(backend.closed for backend in opened):
            self.wrongs.append("the weights were freed before a backend was closed")
        super().close()


def tuned(workers, **changes):
    tuning = default_tuning(cores=workers)
    return msgspec.structs.replace(tuning, threads=2, threads_alone=5, **changes)


def engine_of(weights, tuning, **options):
    return Engine(
        "a-model",
        lambda: LoadedModel(weights, tuning),
        **{
            "clock": HandClock(),
            "queue_tokens_max": 1_000_000,
            "on_death": lambda: None,
            "cache": VectorCache(0),
            **options,
        },
    )


@asynccontextmanager
async def running(*backends, tuning=None, weights=None, **options):
    """Yield a loaded engine with a worker for each backend; at the end all is closed in order."""
    weights = weights or SteppedWeights(*backends)
    engine = engine_of(weights, tuning or tuned(len(backends)), **options)
    await bounded(engine.loaded)
    opened = [each for each in backends if isinstance(each, FakeBackend)]
    try:
        await turned(lambda: engine.workers[0] == len(opened))
        yield engine
    finally:
        for backend in opened:
            backend.free()
        await asyncio.to_thread(engine.close)
    assert all(backend.closed for backend in opened)
    assert weights.closed
    assert weights.wrongs == []


async def bounded(awaitable):
    """Await it, and fail instead of hanging."""
    async with asyncio.timeout(30):
        return await awaitable


async def turned(condition):
    """Let the loop turn until something holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - other threads make it hold
            await asyncio.sleep(0)


async def all_of(jobs):
    return await bounded(asyncio.gather(*(job.result() for job in jobs)))


def sequence(token=1, length=10):
    tokens = np.full(length, token, np.int32)
    return TokenSequence(tokens, length, truncated=False)


def texts(count, *, first=1, length=10):
    """Texts that differ, each of one token repeated: first, first + 1, ..."""
    return [sequence(token, length) for token in range(first, first + count)]


def submit(engine, count, *, first=1, length=10, key="k", **options):
    return engine.submit(texts(count, first=first, length=length), key=key, **options)


async def plugged(engine, *backends, key="plug"):
    """Give each worker a text and return the jobs once all of them compute.

    They are of the batch tier, whose calls change nothing for those that the stories are about.
    """
    jobs = []
    for count in range(len(backends)):
        jobs.append(submit(engine, 1, first=PLUG - count, length=3, key=key, is_batch=True))
        await turned(lambda count=count: engine._computing == count + 1)
    for backend in backends:
        await backend.begins()
    return jobs


async def awaited(job):
    """Begin to await a job's result."""
    waiting = asyncio.create_task(job.result())
    await asyncio.sleep(0)
    return waiting


async def cancelled(waiting):
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# -- sharing ------------------------------------------------------------------------------------


def test_calls_that_wait_together_share_one_call_of_the_backend():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            jobs = [submit(engine, 1, length=5 + n) for n in range(10)]
            backend.free()
            await all_of(jobs)
        assert backend.computed == [[3], [5 + n for n in range(10)]]

    asyncio.run(story())


def test_a_lone_text_does_not_wait_for_company():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as engine:
            [matrix] = await all_of([submit(engine, 1)])
            assert matrix.shape == (1, 4)
        assert backend.computed == [[10]]

    asyncio.run(story())


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_row_belongs_to_its_own_text_whatever_shared_its_batch(workers):
    random = np.random.default_rng(7)
    calls = [
        [sequence(int(random.integers(1, 600)), int(random.integers(1, 300))) for _ in range(size)]
        for size in (1, 40, 3, 100, 1, 17, 64, 2)
    ]

    async def story():
        backends = [Stepped() for _ in range(workers)]
        async with running(*backends) as engine:
            await plugged(engine, *backends)
            jobs = [
                engine.submit(call, key=f"k{index % 3}", is_batch=index % 4 == 3)
                for index, call in enumerate(calls)
            ]
            for backend in backends:
                backend.free()
            return await all_of(jobs)

    alone = Stepped()
    alone.free()
    for call, matrix in zip(calls, asyncio.run(story()), strict=True):
        expected = np.concatenate([alone.compute([each], threads=1) for each in call])
        np.testing.assert_array_equal(matrix, expected)


def test_one_thread_loads_opens_computes_and_frees():
    opened = []

    async def story():
        backend = Stepped()
        backend.free()

        def open_model():
            opened.append(threading.get_ident())
            return LoadedModel(SteppedWeights(backend), tuned(1))

        engine = Engine(
            "m",
            open_model,
            clock=HandClock(),
            queue_tokens_max=999,
            on_death=lambda: None,
            cache=VectorCache(0),
        )
        await bounded(engine.loaded)
        await all_of([submit(engine, 30)])
        await asyncio.to_thread(engine.close)
        assert backend.closed
        assert set(backend.touched_by) == set(opened)
        assert threading.get_ident() not in backend.touched_by

    asyncio.run(story())


@pytest.mark.parametrize("_", range(3))
def test_a_model_that_is_loaded_at_once_computes(_):
    """The worker's thread may be done with loading before the engine's constructor is."""

    async def story():
        backend = Stepped()
        backend.free()
        engine = engine_of(SteppedWeights(backend), tuned(1))
        await bounded(engine.loaded)
        [matrix] = await all_of([submit(engine, 1, first=7)])
        assert matrix.shape == (1, 4)
        assert backend.bins == [[7]]
        await asyncio.to_thread(engine.close)

    asyncio.run(story())


# -- equal texts --------------------------------------------------------------------------------


def test_equal_texts_of_one_call_are_computed_once():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as engine:
            job = engine.submit([sequence(1), sequence(2), sequence(1), sequence(1)], key="k")
            [matrix] = await all_of([job])
            assert matrix[:, 0].tolist() == [1, 2, 1, 1]
            assert (engine.counters.sequences, engine.counters.shared) == (2, 2)
        assert backend.bins == [[1, 2]]

    asyncio.run(story())


def test_texts_that_differ_in_their_segments_alone_are_not_equal():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as engine:
            pair = replace(sequence(1), segment_b=5)
            await all_of([engine.submit([sequence(1), pair], key="k")])
        assert backend.bins == [[1, 1]]

    asyncio.run(story())


@pytest.mark.parametrize("cache", [0, 1_000_000])
def test_the_rows_of_parts_stand_among_those_of_other_texts(cache):
    one, other = sequence(1, 6), sequence(2, 4)
    parts, others = replace(one, parts=(1, 2, 3)), replace(one, parts=(3, 2, 1))

    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend, cache=VectorCache(cache)) as engine:
            calls = [[other, parts, other, others, one], [parts], [other, parts]]
            return [await engine.submit(call, key="k").result() for call in calls]

    alone = Stepped()
    alone.free()
    rows = [alone.compute([each], threads=1) for each in (other, parts, other, others, one)]
    first, second, third = asyncio.run(story())
    np.testing.assert_array_equal(first, np.concatenate(rows))
    np.testing.assert_array_equal(second, rows[1])
    np.testing.assert_array_equal(third, np.concatenate(rows[:2]))
    assert len(first) == 9


def test_a_refused_batch_leaves_the_rows_of_parts_to_their_call():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            guilty = engine.submit([sequence(POISON)], key="g")
            job = engine.submit([replace(sequence(1, 6), parts=(2, 4)), sequence(3)], key="h")
            backend.free()
            with pytest.raises(InferenceFailed, match="poison"):
                await bounded(guilty.result())
            assert (await bounded(job.result())).shape == (3, 4)

    asyncio.run(story())


def test_a_text_that_another_call_waits_for_is_computed_once():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            jobs = [engine.submit(texts(5), key=f"k{n}") for n in range(4)]
            assert engine.tokens_waiting == 3 + 50
            backend.free()
            for matrix in await all_of(jobs):
                assert matrix[:, 0].tolist() == [1, 2, 3, 4, 5]
        assert backend.bins == [[PLUG], [1, 2, 3, 4, 5]]

    asyncio.run(story())


def test_a_text_that_is_being_computed_for_another_call_is_computed_once():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            one = submit(engine, 3)
            await backend.begins()
            same = submit(engine, 3, key="other")
            more = submit(engine, 4, key="third")
            assert engine.tokens_waiting == 40
            backend.free()
            for matrix, count in zip(await all_of([one, same, more]), (3, 3, 4), strict=True):
                assert matrix[:, 0].tolist() == list(range(1, count + 1))
        assert backend.bins == [[1, 2, 3], [4]]

    asyncio.run(story())


def test_a_text_is_computed_again_once_nobody_waits_for_it():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as engine:
            for _ in range(3):
                await all_of([submit(engine, 1)])
            assert engine._queue.items == {}
        assert backend.bins == [[1]] * 3

    asyncio.run(story())


@pytest.mark.parametrize("own", [0, 3], ids=["which has nothing else", "which has more"])
def test_what_a_call_that_left_brought_goes_to_one_that_wants_the_same(own):
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            leaves = await awaited(submit(engine, 5, key="leaver"))
            stays = engine.submit([*texts(5), *texts(own, first=100)], key="heir")
            await cancelled(leaves)
            backend.free()
            [matrix] = await all_of([stays])
            assert matrix[:5, 0].tolist() == [1, 2, 3, 4, 5]
            assert len(engine._queue) == engine.tokens_waiting == 0
        assert sorted(backend.tokens.values()) == [1] * (6 + own)

    asyncio.run(story())


def test_what_a_call_that_left_brought_goes_to_a_call_whose_own_texts_are_done():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            leaves = await awaited(submit(engine, 1, first=5, length=250, key="leaver"))
            submit(engine, 1, first=6, length=251, key="between")
            next_waiter = engine.submit([sequence(5, 250), sequence(7, 5)], key="heir")
            backend.steps.release()
            await backend.begins()
            await cancelled(leaves)
            backend.free()
            [matrix] = await all_of([next_waiter])
            assert matrix[:, 0].tolist() == [5, 7]
        assert backend.tokens[5] == backend.tokens[7] == 1

    asyncio.run(story())


def test_what_the_heir_leaves_too_is_never_computed():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            plug = await plugged(engine, backend)
            waiting = [await awaited(submit(engine, 5, key=key)) for key in "abc"]
            for each in waiting:
                await cancelled(each)
            backend.free()
            await all_of([*plug, submit(engine, 1, first=50)])
            assert engine._queue.items == {}
        assert backend.bins == [[PLUG], [50]]

    asyncio.run(story())


def test_a_call_that_left_while_its_text_is_computed_leaves_the_row_to_the_next_one():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            leaves = await awaited(submit(engine, 1))
            await backend.begins()
            await cancelled(leaves)
            stays = submit(engine, 1, key="other")
            backend.free()
            await all_of([stays])
        assert backend.bins == [[1]]

    asyncio.run(story())


def test_what_a_failed_call_brought_goes_to_one_that_wants_the_same():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            guilty = engine.submit([sequence(POISON), *texts(100)], key="guilty")
            innocent = engine.submit(texts(100), key="innocent")
            backend.free()
            with pytest.raises(InferenceFailed):
                await bounded(guilty.result())
            [matrix] = await all_of([innocent])
            assert matrix[:, 0].tolist() == list(range(1, 101))
        assert set(backend.tokens.values()) == {1}

    asyncio.run(story())


# -- the cache ----------------------------------------------------------------------------------


def test_a_text_that_comes_again_is_not_computed_when_there_is_a_cache():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend, cache=VectorCache(1_000_000)) as engine:
            first = await all_of([submit(engine, 3)])
            again = submit(engine, 3, key="other")
            assert again.left == 0
            assert again.started_ns == again.queued_ns == again.finished_ns
            np.testing.assert_array_equal(await all_of([again]), first)
            [mixed] = await all_of([submit(engine, 5)])
            assert mixed[:, 0].tolist() == [1, 2, 3, 4, 5]
            assert engine.counters.cached == 6
        assert backend.bins == [[1, 2, 3], [4, 5]]

    asyncio.run(story())


def test_a_cached_row_is_nobodys_view():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend, cache=VectorCache(1_000_000)) as engine:
            for _ in range(3):
                [matrix] = await all_of([submit(engine, 1, first=7)])
                assert matrix[0].tolist() == [7, 10, 70, 7]
                matrix[:] = 0

    asyncio.run(story())


def test_a_cache_of_one_load_says_nothing_to_the_next():
    async def story():
        cache = VectorCache(1_000_000)
        for _ in range(2):
            backend = Stepped()
            backend.free()
            async with running(backend, cache=cache) as engine:
                await all_of([submit(engine, 1)])
            assert backend.bins == [[1]]

    asyncio.run(story())


# -- workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_compute_at_the_same_time_each_on_its_own_thread(workers):
    async def story():
        backends = [Stepped() for _ in range(workers)]
        async with running(*backends) as engine:
            jobs = await plugged(engine, *backends)
            jobs.append(submit(engine, 100, length=100))
            for backend in backends:
                backend.free()
            await all_of(jobs)
        owners = [set(backend.touched_by) for backend in backends]
        assert [len(owner) for owner in owners] == [1] * workers
        assert len(set.union(*owners)) == workers
        assert threading.get_ident() not in set.union(*owners)

    asyncio.run(story())


@pytest.mark.parametrize(("workers", "sizes"), [(2, [5, 5]), (3, [4, 3, 3])])
def test_a_call_is_spread_over_the_workers_that_are_idle(workers, sizes):
    async def story():
        backends = [Stepped() for _ in range(workers)]
        async with running(*backends) as engine:
            job = submit(engine, 10, length=25)
            for backend in backends:
                await backend.begins()
            for backend in backends:
                backend.free()
            await all_of([job])
        assert sorted((len(b.bins[0]) for b in backends), reverse=True) == sizes
        assert all(len(backend.bins) == 1 for backend in backends)

    asyncio.run(story())


def test_a_call_is_not_spread_over_workers_that_compute():
    async def story():
        one, two = Stepped(), Stepped()
        async with running(one, two) as engine:
            await plugged(engine, one, two)
            job = submit(engine, 10, length=25)
            one.free()
            await all_of([job])
            two.free()
        assert sorted(map(len, one.bins)) == [1, 10]

    asyncio.run(story())


def test_a_short_call_is_not_cut_into_pieces_that_cost_more_than_they_save():
    async def story():
        one, two = Stepped(), Stepped()
        one.free()
        two.free()
        async with running(one, two) as engine:
            await all_of([submit(engine, 6, length=10)])
        assert sorted(map(len, one.bins + two.bins)) == [6]

    asyncio.run(story())


def test_a_worker_has_all_threads_while_nothing_else_waits_or_runs():
    async def story():
        one, two = Stepped(), Stepped()
        async with running(one, two) as engine:
            one.free()
            two.free()
            await all_of([submit(engine, 1)])
            assert one.threads + two.threads == [5]

    asyncio.run(story())


def test_a_worker_has_its_share_of_threads_while_another_computes_or_something_waits():
    async def story():
        one, two = Stepped(), Stepped()
        async with running(one, two) as engine:
            jobs = [submit(engine, 1, first=PLUG)]
            await turned(lambda: engine._computing == 1)
            jobs.append(submit(engine, 1, first=PLUG - 1))
            await one.begins()
            await two.begins()
            one.free()
            two.free()
            await all_of(jobs)
            assert sorted(one.threads + two.threads) == [2, 5]

        alone = Stepped()
        async with running(alone) as engine:
            await plugged(engine, alone)
            many = submit(engine, 60)
            alone.free()
            await all_of([many])
            assert alone.threads == [5, 2, 2, 5]

    asyncio.run(story())


def test_a_worker_that_cannot_be_opened_leaves_an_engine_with_fewer(caplog):
    async def story():
        one = Stepped()
        async with running(one, LoadFailed("no room"), tuning=tuned(2)) as engine:
            one.free()
            await turned(lambda: "has a worker less" in caplog.text)
            assert engine.is_usable
            [matrix] = await all_of([submit(engine, 100)])
            assert matrix.shape == (100, 4)
        assert len(one.bins) == 4

    asyncio.run(story())
    assert "a-model has a worker less" in caplog.text
    assert "no room" in caplog.text


def test_every_worker_opens_with_the_tunings_limits_and_flash_attention():
    async def story():
        weights = SteppedWeights(Stepped(), Stepped())
        tuning = tuned(2, max_batch_tokens=128, flash_attention=False)
        async with running(*weights.backends, weights=weights, tuning=tuning) as engine:
            assert engine.model.tuning == tuning
        assert weights.flash_asked == [False, False]
        assert weights.limits_asked == [replace(LIMITS, max_batch_tokens=128)] * 2

    asyncio.run(story())


@asynccontextmanager
async def lopsided():
    """Yield an engine whose second worker takes no text that is longer than a batch."""
    backends = [Stepped(FACTS), Stepped(FACTS)]
    weights = SteppedWeights(*backends, limits=replace(LIMITS, side_tokens_max=256))
    async with running(*backends, weights=weights) as engine:
        assert [limits.ubatch_tokens_max for limits in weights.limits_asked] == [512, 256]
        yield engine, *backends


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_text_that_only_the_first_worker_takes_wakes_that_worker(count):
    async def story():
        async with lopsided() as (engine, first, second):
            first.free()
            second.free()
            for number in range(6):
                await all_of([submit(engine, count, first=1 + 10 * number, length=400)])
        assert len(first.bins) == 6 * count
        assert second.bins == []

    asyncio.run(story())


def test_short_texts_go_past_one_that_only_a_busy_worker_takes():
    async def story():
        async with lopsided() as (engine, first, second):
            plug = submit(engine, 1, first=PLUG, length=400)
            await turned(lambda: engine._computing == 1)
            long = submit(engine, 1, first=5, length=400, key="long")
            short = submit(engine, 1, first=6, key="short")
            second.free()
            await all_of([short])
            first.free()
            await all_of([plug, long])
        assert first.bins == [[PLUG], [5]]
        assert second.bins == [[6]]

    asyncio.run(story())


# -- fairness -----------------------------------------------------------------------------------


def test_a_call_of_a_thousand_texts_delays_a_call_of_one_by_one_batch():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            big = submit(engine, 1000)
            await backend.begins()
            small = submit(engine, 1, first=5000, length=7)
            backend.steps.release(2)
            await all_of([small])
            assert len(big.matrix) - big.left == 25
            assert backend.computed == [[10] * 25, [7]]
            backend.free()
            [matrix] = await all_of([big])
            assert matrix.shape == (1000, 4)

    asyncio.run(story())


def test_short_calls_wait_for_one_batch_of_long_ones_at_most_and_are_never_in_it():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            long = submit(engine, 30, first=1000)
            short = [submit(engine, 2, first=1 + 2 * n, key=f"s{n}") for n in range(3)]
            backend.free()
            await all_of([long, *short])
        assert [1, 2, 3, 4, 5, 6] in [sorted(each) for each in backend.bins[1:3]]
        assert sum(min(each) < 1000 for each in backend.bins[1:]) == 1

    asyncio.run(story())


def test_one_keys_endless_large_calls_do_not_delay_anothers_single_texts():
    """On a free worker the text is in the next batch; with one worker it waits for one at most."""

    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            large = [submit(engine, 1000, first=1 + 1000 * n, key="large") for n in range(3)]
            await backend.begins()
            for number in range(20):
                single = submit(engine, 1, first=50_000 + number, key="single")
                before = len(backend.bins)
                backend.steps.release(2)
                await all_of([single])
                assert backend.bins[before + 1] == [50_000 + number]
                await backend.begins()
                await backend.begins()
            backend.free()
            await all_of(large)

        one, two = Stepped(), Stepped()
        async with running(one, two) as engine:
            job = submit(engine, 1000, key="large")
            await one.begins()
            await two.begins()
            single = submit(engine, 1, first=50_000, key="single")
            two.free()
            await all_of([single])
            assert two.bins[1] == [50_000]
            one.free()
            await all_of([job])

    asyncio.run(story())


def test_a_free_worker_takes_a_single_text_at_once():
    async def story():
        one, two = Stepped(), Stepped()
        async with running(one, two) as engine:
            await plugged(engine, one, two)
            one.steps.release()
            await turned(lambda: engine._computing == 1)
            single = submit(engine, 1, first=7, key="single")
            one.free()
            await all_of([single])
            assert one.bins[1:] == [[7]]
            assert two.bins == []  # it still computes what it was plugged with
            two.free()

    asyncio.run(story())


def test_texts_of_one_call_that_fill_a_batch_each_do_not_starve_another_keys_call():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            crowd = [submit(engine, 1, first=10 + n, length=200) for n in range(3)]
            long = submit(engine, 1, first=1, length=512, key="long")
            crowd += [submit(engine, 1, first=20 + n, length=200) for n in range(20)]
            backend.free()
            await all_of([long, *crowd])
        assert [1] in backend.bins[:5]

    asyncio.run(story())


def test_of_two_large_calls_of_one_key_the_first_is_finished_first():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            jobs = [submit(engine, 100, first=first) for first in (1000, 2000)]
            backend.free()
            await all_of(jobs)
        order = [token < 2000 for each in backend.bins[1:] for token in each]
        assert order == [True] * 100 + [False] * 100

    asyncio.run(story())


def test_large_calls_whose_texts_fill_a_batch_each_are_finished_in_order():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            jobs = [submit(engine, 3, first=n, length=n) for n in (200, 220, 240)]
            backend.free()
            await all_of(jobs)
        assert [each[0] // 20 for each in backend.computed[1:]] == [10] * 3 + [11] * 3 + [12] * 3

    asyncio.run(story())


async def shares(loads, *, batches):
    """Return the tokens that each key has got after so many batches of a busy worker.

    `loads` holds for each key its calls, each as (texts, length) or (texts, length, is_batch).
    """
    backend = Stepped()
    found = Counter()
    owners = {}
    async with running(backend) as engine:
        await plugged(engine, backend)
        jobs, first = [], 1
        for key, calls in loads.items():
            for count, length, *is_batch in calls:
                owners |= dict.fromkeys(range(first, first + count), key)
                jobs.append(
                    submit(
                        engine, count, first=first, length=length, key=key, is_batch=bool(is_batch)
                    )
                )
                first += count
        backend.steps.release(1 + batches)
        await turned(lambda: len(backend.bins) == 1 + batches)
        for tokens, lengths in list(zip(backend.bins, backend.computed, strict=True))[1:]:
            for token, length in zip(tokens, lengths, strict=True):
                found[owners[token]] += length
        backend.free()
        await all_of(jobs)
    return found


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param([(60, 10)] * 20, [(60, 10)] * 20, id="the same"),
        pytest.param([(60, 10)] * 20, [(20, 37)] * 20, id="short texts and longer ones"),
        pytest.param([(60, 10)] * 20, [(3, 250)] * 20, id="short texts and ones that fill a bin"),
        pytest.param([(9, 100)] * 20, [(2, 500)] * 20, id="ones longer than a bin"),
        pytest.param([(30, 10)] * 40, [(120, 10)] * 10, id="many calls and few"),
    ],
)
def test_two_keys_with_long_loads_get_equal_tokens_but_for_a_call(one, two):
    batches = 30
    found = asyncio.run(shares({"one": one, "two": two}, batches=batches))
    longest = max(length for _, length in [*one, *two])
    call = max(count * length for count, length in [*one, *two])
    assert abs(found["one"] - found["two"]) <= call + LIMITS.max_batch_tokens + longest


def test_when_a_large_call_ends_a_key_with_a_hundred_calls_has_got_as_much():
    loads = {"crowd": [(30, 10)] * 100, "single": [(1000, 10)]}
    found = asyncio.run(shares(loads, batches=80))
    assert abs(found["crowd"] - found["single"]) <= 300 + LIMITS.max_batch_tokens + 10
    found = asyncio.run(shares(loads, batches=36))
    assert found["crowd"] >= 36 * 250 - 300, "its calls, which are smaller, end first"


def test_four_keys_get_a_quarter_each_but_for_a_call():
    loads = {f"k{n}": [(60 // (1 + n), 5 + 10 * n)] * 50 for n in range(4)}
    found = asyncio.run(shares(loads, batches=60))
    assert max(found.values()) - min(found.values()) <= 600 + LIMITS.max_batch_tokens + 35


# -- the batch tier -----------------------------------------------------------------------------


def test_realtime_calls_are_computed_before_batch_calls():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            job = submit(engine, 1, first=PLUG, is_batch=True)
            await backend.begins()
            batch = submit(engine, 5, first=1000, is_batch=True)
            long = submit(engine, 50, first=100)
            short = submit(engine, 2, first=1)
            backend.free()
            await all_of([job, batch, long, short])
        assert [min(each) for each in backend.bins[:3]] == [PLUG, 1, 100]

    asyncio.run(story())


def test_realtime_and_batch_never_share_a_batch():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            jobs = [submit(engine, 40, first=1), submit(engine, 40, first=1000, is_batch=True)]
            backend.free()
            await all_of(jobs)
        assert all(max(each) < 1000 or min(each) >= 1000 for each in backend.bins[1:])

    asyncio.run(story())


@pytest.mark.parametrize(
    ("realtime", "floor"),
    [
        pytest.param([(20, 10)] * 120, 11, id="short"),
        pytest.param([(2400, 10)], 11, id="long"),
        pytest.param([(20, 10)] * 120 + [(2400, 10)], 21, id="short and long"),
    ],
)
def test_the_batch_tier_has_its_floor_while_realtime_is_saturated(realtime, floor):
    loads = {"realtime": realtime, "batch": [(400, 10, True)]}
    found = asyncio.run(shares(loads, batches=88))
    total = sum(found.values())
    assert total / floor - LIMITS.max_batch_tokens <= found["batch"] <= total / 5


def test_the_batch_tier_has_everything_while_nothing_else_waits():
    found = asyncio.run(shares({"batch": [(400, 10, True)]}, batches=10))
    assert found["batch"] == 10 * 250


# -- cancelling ---------------------------------------------------------------------------------


def test_a_cancelled_call_is_never_computed():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            plug = await plugged(engine, backend)
            await cancelled(await awaited(submit(engine, 100, first=500)))
            backend.free()
            await all_of([*plug, submit(engine, 1, first=6)])
        assert backend.bins == [[PLUG], [6]]

    asyncio.run(story())


def test_what_a_cancelled_call_has_in_no_batch_yet_is_never_computed():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            waiting = await awaited(submit(engine, 1000))
            await backend.begins()
            await cancelled(waiting)
            backend.free()
            await all_of([submit(engine, 1, first=5000)])
        assert list(map(len, backend.bins)) == [25, 1]

    asyncio.run(story())


def test_a_cancelled_call_gives_its_room_in_the_queue_back():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=103) as engine:
            plug = await plugged(engine, backend)
            waiting = await awaited(submit(engine, 10))
            with pytest.raises(QueueFull):
                submit(engine, 1, first=50, length=1)
            await cancelled(waiting)
            backend.free()
            await all_of(plug)
            # It is dropped when the worker next looks for work, which this one makes it do.
            await all_of([submit(engine, 1, first=60, length=3)])
            await all_of([submit(engine, 10)])

    asyncio.run(story())


def test_a_call_that_is_cancelled_leaves_nothing_behind():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            plug = await plugged(engine, backend)
            await cancelled(await awaited(submit(engine, 100)))
            backend.free()
            await all_of([*plug, submit(engine, 1, first=5000)])
            assert engine._queue.items == {}
            assert repr(engine) == "<Engine a-model [ready | 0 jobs | 0 tokens]>"

    asyncio.run(story())


# -- refusals of the engine ---------------------------------------------------------------------


def test_a_refused_batch_fails_the_guilty_call_alone():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            good = [submit(engine, 3, first=10 * n) for n in (1, 2)]
            guilty = engine.submit([*texts(1, first=30), sequence(POISON)], key="g")
            also = engine.submit([sequence(POISON)], key="h")
            good.append(submit(engine, 3, first=40))
            backend.free()
            for matrix in await all_of(good):
                assert matrix.shape == (3, 4)
            for job in (guilty, also):
                with pytest.raises(InferenceFailed, match="poison"):
                    await bounded(job.result())
            await all_of([submit(engine, 1, first=50)])
            assert engine._queue.items == {}
        assert all(len(each) == 1 for each in backend.bins[1:])

    asyncio.run(story())


def test_what_a_refused_call_still_had_in_no_batch_is_never_computed():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=1000) as engine:
            guilty = engine.submit([sequence(POISON), *texts(99)], key="g")
            backend.free()
            with pytest.raises(InferenceFailed):
                await bounded(guilty.result())
            assert engine.tokens_waiting == 0
            assert len(backend.tokens) == 24
            await all_of([submit(engine, 100)])

    asyncio.run(story())


def test_a_text_whose_call_left_is_not_tried_again_in_a_refused_batch():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            leaves = await awaited(submit(engine, 1, first=5))
            guilty = engine.submit([sequence(POISON)], key="g")
            backend.steps.release()
            await backend.begins()
            await cancelled(leaves)
            backend.free()
            with pytest.raises(InferenceFailed):
                await bounded(guilty.result())
        assert backend.tokens[5] == 0

    asyncio.run(story())


def test_a_call_that_comes_while_a_refused_batch_is_tried_again_is_answered():
    """It wants a text that was skipped, because nobody wanted it then."""

    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            await plugged(engine, backend)
            leaves = await awaited(submit(engine, 1, first=5, key="a"))
            guilty = engine.submit([sequence(POISON)], key="b")
            backend.steps.release()
            await backend.begins()
            await cancelled(leaves)
            backend.steps.release()
            await backend.begins()  # the poison alone; the other text was skipped
            late = submit(engine, 1, first=5, key="c")
            backend.free()
            with pytest.raises(InferenceFailed):
                await bounded(guilty.result())
            await all_of([late])

    asyncio.run(story())


def test_the_log_of_a_refused_batch_holds_the_reason_and_no_text(caplog):
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as engine:
            with pytest.raises(InferenceFailed):
                await bounded(engine.submit([sequence(POISON)], key="k").result())

    with caplog.at_level(logging.WARNING, "gigarouter.worker"):
        asyncio.run(story())
    expected = "a batch of a-model/0 failed: The model could not compute this call: poison"
    assert caplog.messages == [expected]


# -- death --------------------------------------------------------------------------------------


@pytest.mark.parametrize("unexpected", [None, ValueError("a bug of ours"), MemoryError()])
def test_death_fails_everything_that_is_owed_and_is_told_first(unexpected, caplog):
    heard = []

    async def story():
        backend = Stepped()
        backend.die, backend.error = True, unexpected
        async with running(backend, on_death=lambda: heard.append("death")) as engine:
            [computing] = await plugged(engine, backend)
            owed = [computing, submit(engine, 1000), submit(engine, 1, first=5000)]
            waiting = [await awaited(job) for job in owed]
            for each in waiting:
                each.add_done_callback(lambda _: heard.append("caller"))
            backend.free()
            answers = await bounded(asyncio.gather(*waiting, return_exceptions=True))
            assert [type(answer) for answer in answers] == [EngineRestarting] * 3
            assert heard == ["death", "caller", "caller", "caller"]
            assert not engine.is_usable
            with pytest.raises(EngineRestarting) as refused:
                submit(engine, 1)
            assert refused.value.retry_after_s == 2

    asyncio.run(story())
    assert "engine of a-model died" in caplog.text


def test_a_dead_engine_has_nothing_left_to_do():
    async def story():
        backend = Stepped()
        backend.die = True
        async with running(backend) as engine:
            owed = await awaited((await plugged(engine, backend))[0])
            backend.free()
            with pytest.raises(EngineRestarting):
                await bounded(owed)
            await asyncio.to_thread(engine.close)
            assert repr(engine).startswith("<Engine a-model [dead | 0 jobs")

    asyncio.run(story())


def test_the_death_of_one_worker_ends_all_and_is_told_once():
    deaths = []

    async def story():
        one, two = Stepped(), Stepped()
        weights = SteppedWeights(one, two)
        async with running(one, two, weights=weights, on_death=lambda: deaths.append(1)) as engine:
            computing = await plugged(engine, one, two)
            waiting = [await awaited(job) for job in [*computing, submit(engine, 1000)]]
            one.die = True
            one.free()
            answers = await bounded(asyncio.gather(*waiting, return_exceptions=True))
            assert {type(answer) for answer in answers} == {EngineRestarting}
            await turned(lambda: one.closed)
            assert (two.closed, weights.closed) == (False, False)
            two.free()
            await turned(lambda: weights.closed)
        assert len(two.bins) == 1
        await asyncio.sleep(0)

    asyncio.run(story())
    assert deaths == [1]


def test_the_death_of_two_workers_is_told_once():
    deaths = []

    async def story():
        one, two = Stepped(), Stepped()
        one.die = two.die = True
        async with running(one, two, on_death=lambda: deaths.append(1)) as engine:
            waiting = [await awaited(job) for job in await plugged(engine, one, two)]
            one.free()
            two.free()
            answers = await bounded(asyncio.gather(*waiting, return_exceptions=True))
            assert [type(answer) for answer in answers] == [EngineRestarting] * 2

    asyncio.run(story())
    assert deaths == [1]


def test_calls_that_share_what_a_dead_worker_computed_all_fail():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            jobs = [submit(engine, 3)]
            await backend.begins()
            jobs += [submit(engine, 3, key=key) for key in "abc"]
            waiting = [await awaited(job) for job in jobs]
            backend.die = True
            backend.free()
            answers = await bounded(asyncio.gather(*waiting, return_exceptions=True))
            assert [type(answer) for answer in answers] == [EngineRestarting] * 4

    asyncio.run(story())


def test_a_call_that_was_half_computed_when_the_engine_died_fails_as_a_whole():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            waiting = await awaited(submit(engine, 30))
            await backend.begins()
            backend.steps.release()
            await backend.begins()
            backend.die = True
            backend.free()
            with pytest.raises(EngineRestarting):
                await bounded(waiting)
        assert list(map(len, backend.bins)) == [25]

    asyncio.run(story())


def test_a_worker_that_opens_after_the_engine_died_finds_its_weights_whole():
    async def story():
        one, two = Stepped(), Stepped()
        weights = SteppedWeights(one, two)
        weights.gates[1].clear()
        engine = engine_of(weights, tuned(2))
        await bounded(engine.loaded)
        one.die = True
        one.free()
        two.free()
        with pytest.raises(EngineRestarting):
            await bounded(submit(engine, 1).result())
        await turned(lambda: one.closed)
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await asyncio.sleep(0.05)
        weights.gates[1].set()
        await bounded(closing)
        await turned(lambda: two.closed and weights.closed)
        assert weights.wrongs == []

    asyncio.run(story())


# -- loading ------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_says_why_and_takes_no_calls():
    async def story():
        deaths = []

        def fail():
            raise LoadFailed("no room")

        engine = Engine(
            "m",
            fail,
            clock=HandClock(),
            queue_tokens_max=9,
            on_death=lambda: deaths.append(1),
            cache=VectorCache(0),
        )
        with pytest.raises(LoadFailed, match="no room"):
            await bounded(engine.loaded)
        assert not engine.is_usable
        assert repr(engine) == "<Engine m [dead | 0 jobs | 0 tokens]>"
        with pytest.raises(EngineRestarting):
            submit(engine, 1)
        await asyncio.to_thread(engine.close)
        assert deaths == []

    asyncio.run(story())


def test_a_model_whose_first_worker_cannot_be_opened_frees_its_weights_and_says_why():
    async def story():
        weights = SteppedWeights(LoadFailed("no room"), Stepped())
        engine = engine_of(weights, tuned(2))
        with pytest.raises(LoadFailed, match="no room"):
            await bounded(engine.loaded)
        assert not engine.is_usable
        with pytest.raises(EngineRestarting):
            submit(engine, 1)
        await asyncio.to_thread(engine.close)
        assert weights.closed
        assert len(weights.limits_asked) == 1

    asyncio.run(story())


def test_a_bug_while_loading_is_a_load_that_failed(caplog):
    async def story():
        weights = SteppedWeights(ValueError("a bug of ours"))
        engine = engine_of(weights, tuned(1))
        with pytest.raises(LoadFailed, match="a bug of ours"):
            await bounded(engine.loaded)
        await asyncio.to_thread(engine.close)

    asyncio.run(story())
    assert "a-model could not be loaded" in caplog.text


def test_an_engine_that_loads_is_not_usable_yet():
    async def story():
        backend = Stepped()
        weights = SteppedWeights(backend)
        weights.gates[0].clear()
        engine = engine_of(weights, tuned(1))
        assert not engine.is_usable
        assert repr(engine).startswith("<Engine a-model [")
        weights.gates[0].set()
        await bounded(engine.loaded)
        assert engine.is_usable
        assert engine.model.weights.facts == FACTS
        await asyncio.to_thread(engine.close)

    asyncio.run(story())


def test_the_first_worker_computes_while_the_others_are_opened():
    async def story():
        one, two = Stepped(), Stepped()
        weights = SteppedWeights(one, two)
        weights.gates[1].clear()
        engine = engine_of(weights, tuned(2))
        await bounded(engine.loaded)
        one.free()
        two.free()
        await all_of([submit(engine, 1)])
        weights.gates[1].set()
        await turned(lambda: engine.workers[0] == 2)
        await asyncio.to_thread(engine.close)
        assert weights.wrongs == []

    asyncio.run(story())


@pytest.mark.parametrize("fails", [False, True], ids=["opens", "cannot be opened"])
def test_closing_waits_for_a_worker_that_is_being_opened(fails, caplog):
    async def story():
        one = Stepped()
        weights = SteppedWeights(one, LoadFailed("no room") if fails else Stepped())
        weights.gates[1].clear()
        engine = engine_of(weights, tuned(2))
        await bounded(engine.loaded)
        one.free()
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await turned(lambda: one.closed)
        weights.gates[1].set()
        await bounded(closing)
        await asyncio.sleep(0)
        assert weights.closed
        assert weights.wrongs == []

    asyncio.run(story())
    assert "Exception in callback" not in caplog.text


def test_closing_while_the_model_is_loaded_waits_for_every_worker():
    async def story():
        weights = SteppedWeights(Stepped(), Stepped())
        weights.gates[0].clear()
        weights.gates[1].clear()
        engine = engine_of(weights, tuned(2))
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await turned(lambda: engine._closing)
        weights.gates[0].set()
        await asyncio.sleep(0.05)
        assert not closing.done()
        weights.gates[1].set()
        await bounded(closing)
        assert weights.closed
        assert weights.wrongs == []

    asyncio.run(story())


# -- bounds and the end -------------------------------------------------------------------------


def test_the_queue_is_bounded_in_tokens_and_opens_again():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=100) as engine:
            plug = await plugged(engine, backend)
            fills = submit(engine, 1, length=97)
            with pytest.raises(QueueFull) as refused:
                submit(engine, 1, first=50, length=1)
            assert 1 <= refused.value.retry_after_s <= 60
            backend.free()
            await all_of([*plug, fills])
            # The room of a finished call is free as soon as its caller hears of it.
            await all_of([submit(engine, 10)])

    asyncio.run(story())


def test_a_long_queue_is_told_to_come_back_later_than_a_short_one():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=20_000) as engine:
            await plugged(engine, backend)
            submit(engine, 1000)
            with pytest.raises(QueueFull) as short:
                submit(engine, 1500, first=2000)
            submit(engine, 990, first=4000)
            with pytest.raises(QueueFull) as long:
                submit(engine, 100, first=6000)
            # 2,000 tokens a second is the first guess.
            assert (short.value.retry_after_s, long.value.retry_after_s) == (5, 10)

    asyncio.run(story())


def expect(engine, key, tokens, *, patience_s):
    return engine.expect(
        key=key, at_least=tokens, about=tokens, is_batch=False, patience_s=patience_s
    )


def test_calls_whose_texts_are_being_tokenized_count_as_if_they_waited():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=10_000_000) as engine:
            # 2,000 tokens a second is the first guess; 14 s of 20 are for the queue.
            ends = [expect(engine, str(n), 10_000, patience_s=20) for n in range(2)]
            with pytest.raises(QueueFull):
                expect(engine, "third", 10_000, patience_s=20)
            with pytest.raises(QueueFull):
                submit(engine, 1_000, length=10, key="third", patience_s=20)
            expect(engine, "light", 1_000, patience_s=20)()
            ends[0]()
            ends[0]()
            ends.append(expect(engine, "third", 10_000, patience_s=20))
            for end in ends[1:]:
                end()
            assert not any(each.expected for each in engine._queue._classes.values())

    asyncio.run(story())


def test_a_call_that_would_not_end_in_time_is_refused_and_an_idle_engine_refuses_none():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=10_000_000) as engine:
            # 2,000 tokens a second is the first guess: this one takes ten minutes.
            huge = submit(engine, 4_000, length=300, patience_s=1)
            await turned(lambda: engine._computing == 1)
            # Of another key's work only as much comes first as a fair turn gives it.
            quiet = submit(engine, 10, first=9_000, key="quiet", patience_s=10)
            with pytest.raises(QueueFull) as refused:
                submit(engine, 1_000, first=9_100, patience_s=60)
            assert refused.value.retry_after_s == 60
            with pytest.raises(QueueFull):
                expect(engine, "k", 10_000, patience_s=60)
            expect(engine, "quiet", 10, patience_s=10)
            expect(engine, "k", 10_000, patience_s=1e9)
            huge.cancelled = True
            backend.free()
            await quiet.result()

    asyncio.run(story())


def test_a_refused_call_is_not_in_the_queue_at_all():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=100) as engine:
            plug = await plugged(engine, backend)
            with pytest.raises(QueueFull):
                submit(engine, 10)
            assert (len(engine._queue), engine.tokens_waiting) == (0, 3)
            backend.free()
            await all_of(plug)
        assert backend.bins == [[PLUG]]

    asyncio.run(story())


@pytest.mark.parametrize("workers", [1, 2])
def test_closing_finishes_the_batches_that_are_computed_and_refuses_the_rest(workers):
    async def story():
        backends = [Stepped() for _ in range(workers)]
        weights = SteppedWeights(*backends)
        deaths = []
        async with running(*backends, weights=weights, on_death=lambda: deaths.append(1)) as engine:
            computing = [await awaited(job) for job in await plugged(engine, *backends)]
            queued = await awaited(submit(engine, 10))
            closing = asyncio.create_task(asyncio.to_thread(engine.close))
            await turned(lambda: engine._closing)
            with pytest.raises(EngineRestarting):
                submit(engine, 1)
            for backend in backends:
                assert not weights.closed
                backend.free()
                await turned(lambda backend=backend: backend.closed)
            await bounded(closing)
            for matrix in await bounded(asyncio.gather(*computing)):
                assert matrix.shape == (1, 4)
            with pytest.raises(EngineRestarting):
                await bounded(queued)
        assert [backend.computed for backend in backends] == [[[3]]] * workers
        assert deaths == []

    asyncio.run(story())


def test_an_empty_call_is_our_own_mistake():
    async def story():
        backend = Stepped()
        async with running(backend) as engine:
            with pytest.raises(AssertionError):
                engine.submit([], key="k")

    asyncio.run(story())


def test_what_was_done_is_counted():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as engine:
            await all_of([submit(engine, 60)])
            counters = engine.counters
            assert (counters.batches, counters.sequences, counters.tokens) == (3, 60, 600)

    asyncio.run(story())
