"""One lane over a fake backend that computes when it is told to."""

import asyncio
import logging
import threading
from collections import Counter
from contextlib import asynccontextmanager

import numpy as np
import pytest

from appliance.core.errors import (
    EngineRestarting,
    InferenceFailed,
    LoadFailed,
    QueueFull,
)
from appliance.engine.backend import EngineLimits, ModelFacts
from appliance.engine.fake import FakeBackend
from appliance.scheduler.lane import Lane
from appliance.tasks.sequence import TokenSequence
from tests.appliance import HandClock

FACTS = ModelFacts(vocabulary=1000, width=4, tokens_max=512, description="fake")
LIMITS = EngineLimits(ubatch_tokens_max=512, bin_tokens=256, sequences_max=64)
POISON = 666


class Stepped(FakeBackend):
    """Computes one bin for each step that it is given; refuses bins with the poison token."""

    def __init__(self):
        super().__init__(FACTS, LIMITS)
        self.entered = threading.Semaphore(0)
        self.steps = threading.Semaphore(0)
        self.is_free = False
        self.threads = Counter()
        self.tokens = Counter()
        self.error = None

    def compute(self, sequences):
        self.threads[threading.get_ident()] += 1
        self.entered.release()
        if not self.is_free:
            self.steps.acquire()
        if self.error is not None:
            raise self.error
        if any(POISON in sequence.tokens for sequence in sequences):
            raise InferenceFailed("poison")
        matrix = super().compute(sequences)
        self.tokens.update(int(sequence.tokens[0]) for sequence in sequences)
        return matrix

    def close(self):
        self.threads[threading.get_ident()] += 1
        super().close()

    def _row(self, sequence):
        tokens = sequence.tokens.astype(np.float32)
        return np.array([tokens[0], len(tokens), tokens.sum(), tokens[-1]], np.float32)

    async def begins(self):
        """Return once the lane has given it a bin."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)

    def free(self):
        """Compute everything from now on without waiting."""
        self.is_free = True
        self.steps.release()


@asynccontextmanager
async def running(backend, *, queue_tokens_max=1_000_000, on_death=lambda: None):
    lane = Lane(
        "a-model",
        lambda: backend,
        clock=HandClock(),
        queue_tokens_max=queue_tokens_max,
        on_death=on_death,
    )
    await lane.loaded
    try:
        yield lane
    finally:
        backend.free()
        await asyncio.to_thread(lane.close)


def sequence(token=1, length=10):
    tokens = np.full(length, token, np.int32)
    return TokenSequence(tokens, length, truncated=False)


def texts(count, *, token=1, length=10):
    return [sequence(token, length) for _ in range(count)]


async def plugged(lane, backend):
    """Give the lane one text and return once it computes that one alone."""
    job = lane.submit(texts(1, token=999, length=3))
    await backend.begins()
    return job


async def awaited(job):
    """Begin to await a job's result."""
    waiting = asyncio.create_task(job.result())
    await asyncio.sleep(0)
    return waiting


# -- sharing ------------------------------------------------------------------------------------


def test_calls_that_wait_together_share_one_call_of_the_backend():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            await plugged(lane, backend)
            jobs = [lane.submit(texts(1, length=5 + n)) for n in range(10)]
            backend.free()
            await asyncio.gather(*(job.result() for job in jobs))
        assert backend.computed == [[3], [5 + n for n in range(10)]]

    asyncio.run(story())


def test_a_lone_text_does_not_wait_for_company():
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as lane:
            assert (await lane.submit(texts(1)).result()).shape == (1, 4)
        assert backend.computed == [[10]]

    asyncio.run(story())


def test_every_row_belongs_to_its_own_text_whatever_shared_its_bin():
    random = np.random.default_rng(7)
    calls = [
        [sequence(int(random.integers(1, 600)), int(random.integers(1, 300))) for _ in range(size)]
        for size in (1, 40, 3, 100, 1, 17, 64, 2)
    ]

    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            await plugged(lane, backend)
            jobs = [lane.submit(call) for call in calls]
            backend.free()
            return await asyncio.gather(*(job.result() for job in jobs))

    alone = Stepped()
    alone.free()
    for call, matrix in zip(calls, asyncio.run(story()), strict=True):
        expected = np.concatenate([alone.compute([each]) for each in call])
        np.testing.assert_array_equal(matrix, expected)


def test_one_thread_opens_computes_and_frees_the_backend():
    opened = []

    async def story():
        backend = Stepped()
        backend.free()

        def open_backend():
            opened.append(threading.get_ident())
            return backend

        lane = Lane(
            "m", open_backend, clock=HandClock(), queue_tokens_max=999, on_death=lambda: None
        )
        await lane.loaded
        await lane.submit(texts(30)).result()
        await asyncio.to_thread(lane.close)
        assert backend.closed
        assert set(backend.threads) == set(opened)
        assert threading.get_ident() not in backend.threads

    asyncio.run(story())


# -- fairness -----------------------------------------------------------------------------------


def test_a_call_of_a_thousand_texts_delays_a_call_of_one_by_one_bin():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            big = lane.submit(texts(1000))
            await backend.begins()
            small = lane.submit(texts(1, length=7))
            backend.steps.release(2)
            await small.result()
            assert len(big.sequences) - big.left < 60
            assert [7 in lengths for lengths in backend.computed[:2]] == [False, True]
            backend.free()
            assert (await big.result()).shape == (1000, 4)

    asyncio.run(story())


def test_calls_of_one_text_keep_coming_and_a_call_of_full_length_is_not_starved():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            await plugged(lane, backend)
            crowd = [lane.submit(texts(1, length=200)) for _ in range(3)]
            long = lane.submit(texts(1, length=512))
            crowd += [lane.submit(texts(1, length=200)) for _ in range(20)]
            backend.free()
            await asyncio.gather(long.result(), *(job.result() for job in crowd))
        assert backend.computed[:6] == [[3], [200], [200], [200], [512], [200]]

    asyncio.run(story())


def test_two_large_calls_take_turns_within_every_bin():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            await plugged(lane, backend)
            one = lane.submit(texts(100, token=1))
            two = lane.submit(texts(100, token=2))
            backend.steps.release(2)
            await backend.begins()
            await backend.begins()
            assert abs(backend.tokens[1] - backend.tokens[2]) <= 1
            backend.free()
            await asyncio.gather(one.result(), two.result())

    asyncio.run(story())


def test_calls_whose_texts_fill_a_bin_each_take_turns():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            await plugged(lane, backend)
            jobs = [lane.submit(texts(3, length=length)) for length in (200, 201, 202)]
            backend.free()
            await asyncio.gather(*(job.result() for job in jobs))
        assert backend.computed == [[3], *[[200], [201], [202]] * 3]

    asyncio.run(story())


# -- cancelling ---------------------------------------------------------------------------------


def test_a_cancelled_call_is_never_computed():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            plug = await plugged(lane, backend)
            waiting = await awaited(lane.submit(texts(100, token=5)))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            backend.free()
            await asyncio.gather(plug.result(), lane.submit(texts(1, token=6)).result())
            assert (backend.tokens[5], backend.tokens[6]) == (0, 1)

    asyncio.run(story())


def test_what_a_cancelled_call_has_in_no_bin_yet_is_never_computed():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            waiting = await awaited(lane.submit(texts(1000, token=5)))
            await backend.begins()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            backend.free()
            await lane.submit(texts(1)).result()
            assert backend.tokens[5] == 25  # the bin that had begun

    asyncio.run(story())


def test_a_cancelled_call_gives_its_room_in_the_queue_back():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=103) as lane:
            plug = await plugged(lane, backend)
            waiting = await awaited(lane.submit(texts(10)))
            with pytest.raises(QueueFull):
                lane.submit(texts(1, length=1))
            waiting.cancel()
            await asyncio.wait([waiting])
            backend.free()
            await plug.result()
            # It is dropped when the lane next looks for work, which this one makes it do.
            await lane.submit(texts(1, length=3)).result()
            assert (await lane.submit(texts(10)).result()).shape == (10, 4)

    asyncio.run(story())


# -- refusals of the engine ---------------------------------------------------------------------


def test_a_refused_bin_fails_the_guilty_call_alone():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            await plugged(lane, backend)
            good = [lane.submit(texts(3, token=n)) for n in (1, 2)]
            guilty = lane.submit([*texts(1, token=3), sequence(POISON), *texts(100, token=3)])
            good.append(lane.submit(texts(3, token=4)))
            backend.free()
            for job in good:
                assert (await job.result()).shape == (3, 4)
            with pytest.raises(InferenceFailed, match="poison"):
                await guilty.result()
            assert (await lane.submit(texts(1, token=5)).result()).shape == (1, 4)
        assert backend.tokens[3] == 0

    asyncio.run(story())


def test_a_refused_call_gives_all_of_its_room_in_the_queue_back():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=1000) as lane:
            guilty = lane.submit(texts(100, token=POISON))
            backend.free()
            with pytest.raises(InferenceFailed):
                await guilty.result()
            assert (await lane.submit(texts(100)).result()).shape == (100, 4)

    asyncio.run(story())


def test_the_log_of_a_refused_bin_holds_the_reason_and_no_text(caplog):
    async def story():
        backend = Stepped()
        backend.free()
        async with running(backend) as lane:
            with pytest.raises(InferenceFailed):
                await lane.submit(texts(1, token=POISON)).result()

    with caplog.at_level(logging.WARNING, "gigarouter.lane"):
        asyncio.run(story())
    expected = "a bin of a-model failed: The model could not compute this call: poison"
    assert caplog.messages == [expected]


# -- death --------------------------------------------------------------------------------------


@pytest.mark.parametrize("unexpected", [None, ValueError("a bug of ours"), MemoryError()])
def test_death_fails_everything_that_is_owed_and_is_told_first(unexpected, caplog):
    heard = []

    async def story():
        backend = Stepped()
        backend.die, backend.error = True, unexpected
        async with running(backend, on_death=lambda: heard.append("death")) as lane:
            computing = await plugged(lane, backend)
            owed = [computing, lane.submit(texts(1000)), lane.submit(texts(1))]
            waiting = [await awaited(job) for job in owed]
            for each in waiting:
                each.add_done_callback(lambda _: heard.append("caller"))
            backend.free()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(answer) for answer in answers] == [EngineRestarting] * 3
            assert heard == ["death", "caller", "caller", "caller"]
            assert not lane.is_usable
            assert repr(lane) == "<Lane a-model [dead | 0 jobs | 0 tokens]>"
            with pytest.raises(EngineRestarting) as refused:
                lane.submit(texts(1))
            assert refused.value.retry_after_s == 2
        assert backend.closed

    asyncio.run(story())
    assert "engine of a-model died" in caplog.text


def test_a_call_that_was_half_computed_when_the_engine_died_fails_as_a_whole():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            waiting = await awaited(lane.submit(texts(30)))
            await backend.begins()
            backend.steps.release()
            await backend.begins()
            backend.die = True
            backend.free()
            with pytest.raises(EngineRestarting):
                await waiting
        assert [len(lengths) for lengths in backend.computed] == [25]

    asyncio.run(story())


# -- loading ------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_says_why_and_takes_no_calls():
    def fail():
        raise LoadFailed("no room")

    async def story():
        deaths = []
        lane = Lane(
            "m", fail, clock=HandClock(), queue_tokens_max=9, on_death=lambda: deaths.append(1)
        )
        with pytest.raises(LoadFailed, match="no room"):
            await lane.loaded
        assert not lane.is_usable
        assert repr(lane) == "<Lane m [dead | 0 jobs | 0 tokens]>"
        await asyncio.to_thread(lane.close)
        assert deaths == []

    asyncio.run(story())


def test_a_lane_that_loads_is_not_usable_yet():
    gate = threading.Event()

    def slowly():
        gate.wait(30)
        return Stepped()

    async def story():
        lane = Lane("m", slowly, clock=HandClock(), queue_tokens_max=9, on_death=lambda: None)
        assert not lane.is_usable
        assert repr(lane) == "<Lane m [loading | 0 jobs | 0 tokens]>"
        gate.set()
        await lane.loaded
        assert lane.is_usable
        assert lane.facts == FACTS
        await asyncio.to_thread(lane.close)

    asyncio.run(story())


# -- bounds and the end -------------------------------------------------------------------------


def test_the_queue_is_bounded_in_tokens_and_opens_again():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=100) as lane:
            plug = await plugged(lane, backend)
            fills = lane.submit(texts(1, length=97))
            with pytest.raises(QueueFull) as refused:
                lane.submit(texts(1, length=1))
            assert 1 <= refused.value.retry_after_s <= 60
            backend.free()
            await asyncio.gather(plug.result(), fills.result())
            # The room of a finished call is free as soon as its caller hears of it.
            assert (await lane.submit(texts(10)).result()).shape == (10, 4)

    asyncio.run(story())


def test_a_long_queue_is_told_to_come_back_later_than_a_short_one():
    async def story():
        backend = Stepped()
        async with running(backend, queue_tokens_max=20_000) as lane:
            await plugged(lane, backend)
            lane.submit(texts(1000))
            with pytest.raises(QueueFull) as short:
                lane.submit(texts(1500))
            lane.submit(texts(990))
            with pytest.raises(QueueFull) as long:
                lane.submit(texts(100))
            # 2,000 tokens a second is the first guess.
            assert (short.value.retry_after_s, long.value.retry_after_s) == (5, 10)

    asyncio.run(story())


def test_closing_finishes_the_bin_that_is_computed_and_refuses_the_rest():
    async def story():
        backend = Stepped()
        deaths = []
        async with running(backend, on_death=lambda: deaths.append(1)) as lane:
            computing = await awaited(await plugged(lane, backend))
            queued = await awaited(lane.submit(texts(10)))
            closing = asyncio.create_task(asyncio.to_thread(lane.close))
            async with asyncio.timeout(30):
                while not lane._closing:  # noqa: ASYNC110 - set by another thread
                    await asyncio.sleep(0)
            with pytest.raises(EngineRestarting):
                lane.submit(texts(1))
            backend.free()
            await closing
            assert (await computing).shape == (1, 4)
            with pytest.raises(EngineRestarting):
                await queued
        assert backend.computed == [[3]]
        assert backend.closed
        assert deaths == []

    asyncio.run(story())


def test_an_empty_call_is_our_own_mistake():
    async def story():
        backend = Stepped()
        async with running(backend) as lane:
            with pytest.raises(AssertionError):
                lane.submit([])

    asyncio.run(story())
