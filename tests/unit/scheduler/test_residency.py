"""Residency over a loader that loads when it is told to."""

import asyncio
import dataclasses
import os
import threading
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from appliance.catalog.spec import ModelEntry, ModelSpec, PriceEntry, checked_tariff
from appliance.core.errors import (
    EngineDied,
    EngineRestarting,
    LoadFailed,
    ModelNotServed,
    ModelWarming,
    QueueFull,
)
from appliance.core.limits import Limits
from appliance.engine.backend import EngineLimits, ModelFacts
from appliance.engine.fake import FakeBackend, FakeWeights
from appliance.engine.loader import LoadedModel, TextEncoder
from appliance.engine.tuning import default_tuning
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.load_times import LOAD_BYTES_PER_S
from appliance.scheduler.model_pool import DEATHS_WITHIN_S, TRY_AGAIN_S
from appliance.scheduler.residency import Residency
from appliance.scheduler.threads import ThreadPool
from appliance.sequences.sequence import Frame, TokenSequence
from tests.appliance import HandClock

FACTS = ModelFacts(vocabulary=1000, width=4, tokens_max=512, description="fake")
LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
ONE = [TokenSequence(np.ones(4, np.int32), 4, truncated=False)]


class Words:
    def encode(self, texts):
        return [np.ones(len(text.split()), np.int32) for text in texts]


class GatedLoader:
    """Counts what it opens; waits for `gate`; fails with what `failures` holds, in turn."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.backends = []
        self.models_asked = []
        self.encoders_asked = []
        self.failures = []
        self.measures = {}
        """By model: what is called to measure it, with its weights and whether that is wanted."""

    def open_model(self, spec, progress):
        progress(0.5)
        self.models_asked.append(spec.id)
        self.gate.wait(60)
        if self.failures:
            raise self.failures.pop(0)
        self.backends.append(FakeBackend(FACTS, LIMITS))
        weights = FakeWeights(FACTS, LIMITS, [self.backends[-1]])
        return LoadedModel(weights, default_tuning(cores=1))

    def open_encoder(self, spec):
        self.encoders_asked.append(spec.id)
        self.gate.wait(60)
        if self.failures:
            raise self.failures.pop(0)
        return TextEncoder(Words(), Frame(1, 2), 512)

    def tokens_max(self, spec):
        return spec.entry.max_input_tokens

    def is_measurable(self, spec):
        return spec.id in self.measures

    def measure_tuning(self, spec, weights, is_wanted):
        return self.measures[spec.id](weights, is_wanted)


class Bench:
    def __init__(self, folder: Path, limits: Limits, **memory):
        self.folder = folder
        self.loader = GatedLoader()
        self.clock = HandClock()
        self.threads = ThreadPool(workers=2, calls_max=limits.tokenizing_calls_max)
        self.residency = Residency(
            self.loader,
            self.threads,
            clock=self.clock,
            limits=limits,
            cache=VectorCache(0),
            **memory,
        )

    def spec(self, name="m", *, file="weights.gguf", pooling="mean", size=10, exists=True):
        path = self.folder / file
        if exists and not path.exists():
            path.touch()
            os.truncate(path, size)
        entry = ModelEntry(
            id=name,
            task="embeddings",
            file=file,
            price=PriceEntry(unit="1M tokens", realtime=Decimal("0.008")),
            max_input_tokens=512,
            pooling=pooling,
            dimensions=4,
        )
        return ModelSpec(entry=entry, tariff=checked_tariff(entry), path=path)

    async def kill(self, spec, *, reload=True):
        """Let the engine die under a call; return once the next load has begun and ended."""
        engine = self.residency.ready(spec)
        self.loader.backends[-1].die = True
        with pytest.raises(EngineRestarting):
            await engine.submit(ONE, key="k").result()
        if reload:
            await self.residency.wait(spec, wait_s=60)


@pytest.fixture
def opened(tmp_path):
    @asynccontextmanager
    async def opened(limits: Limits | None = None, **memory):
        bench = Bench(tmp_path, limits or Limits(), **memory)
        try:
            yield bench
        finally:
            bench.loader.gate.set()
            await bench.residency.close()
            bench.threads.close()

    return opened


async def started(coroutines):
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


# -- loading ------------------------------------------------------------------------------------


def test_many_callers_of_a_cold_model_load_it_once(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            bench.loader.gate.clear()
            waiting = await started(
                bench.residency.wait(spec, wait_s=60, key=str(n)) for n in range(20)
            )
            assert not bench.residency.is_loaded(spec)
            bench.loader.gate.set()
            engines = await asyncio.gather(*waiting)
            assert len(set(map(id, engines))) == 1
            assert bench.loader.models_asked == ["m"]
            assert bench.residency.is_loaded(spec)
            assert bench.residency.ready(spec) is engines[0]
            assert repr(bench.residency) == "<Residency [1 engines]>"

    asyncio.run(story())


def test_the_first_call_begins_the_load_also_when_it_does_not_wait(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            bench.loader.gate.clear()
            with pytest.raises(ModelWarming):
                await bench.residency.wait(spec, wait_s=0)
            assert bench.residency.ready(spec) is None
            bench.loader.gate.set()
            await bench.residency.wait(spec, wait_s=60)
            assert bench.loader.models_asked == ["m"]

    asyncio.run(story())


def test_two_models_over_one_file_share_an_engine(opened):
    async def story():
        async with opened() as bench:
            one, two = bench.spec("one"), bench.spec("two")
            engines = [await bench.residency.wait(spec, wait_s=60) for spec in (one, two)]
            assert engines[0] is engines[1]
            assert bench.loader.models_asked == ["one"]
            assert bench.residency.is_loaded(two)

    asyncio.run(story())


@pytest.mark.parametrize("other", [{"pooling": "cls"}, {"file": "other.gguf"}])
def test_another_file_or_another_pooling_has_an_engine_of_its_own(opened, other):
    async def story():
        async with opened() as bench:
            one, two = bench.spec("one"), bench.spec("two", **other)
            engines = [await bench.residency.wait(spec, wait_s=60) for spec in (one, two)]
            assert engines[0] is not engines[1]
            assert bench.loader.models_asked == ["one", "two"]

    asyncio.run(story())


def test_a_caller_who_leaves_does_not_take_the_load_with_him(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            bench.loader.gate.clear()
            leaves, stays = await started(bench.residency.wait(spec, wait_s=60) for _ in range(2))
            leaves.cancel()
            await asyncio.wait([leaves])
            bench.loader.gate.set()
            assert (await stays).is_usable

    asyncio.run(story())


# -- waiting ------------------------------------------------------------------------------------


def test_the_callers_who_wait_for_one_model_are_bounded(opened):
    async def story():
        async with opened(Limits(warming_waiters_max=2)) as bench:
            spec = bench.spec()
            bench.loader.gate.clear()
            waiting = await started(bench.residency.wait(spec, wait_s=60) for _ in range(2))
            with pytest.raises(ModelWarming):
                await bench.residency.wait(spec, wait_s=60)
            # A place that was left is free again.
            waiting.pop().cancel()
            await asyncio.sleep(0)
            waiting += await started([bench.residency.wait(spec, wait_s=60)])
            bench.loader.gate.set()
            assert len(await asyncio.gather(*waiting)) == 2

    asyncio.run(story())


def test_nobody_waits_longer_than_he_asked_to(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            bench.loader.gate.clear()
            with pytest.raises(ModelWarming, match="Prefer: wait=30"):
                await bench.residency.wait(spec, wait_s=0.001)

    asyncio.run(story())


def test_a_warming_model_says_how_long_its_load_will_still_take(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec(size=10 * LOAD_BYTES_PER_S)
            bench.loader.gate.clear()
            found = []
            for seconds in (0, 4, 100):
                bench.clock.advance(seconds)
                with pytest.raises(ModelWarming) as warming:
                    await bench.residency.wait(spec, wait_s=0)
                found.append(warming.value.retry_after_s)
            assert found == [10, 6, 1]

    asyncio.run(story())


def test_nobody_is_told_to_wait_for_more_than_a_minute(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec(size=1000 * LOAD_BYTES_PER_S)
            bench.loader.gate.clear()
            with pytest.raises(ModelWarming) as warming:
                await bench.residency.wait(spec, wait_s=0)
            assert warming.value.retry_after_s == 60

    asyncio.run(story())


# -- failures -----------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_is_not_served_and_says_why(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            bench.loader.failures = [LoadFailed("the head is missing")]
            with pytest.raises(ModelNotServed, match="the head is missing"):
                await bench.residency.wait(spec, wait_s=60)
            assert bench.residency.reason(spec) == "the head is missing"
            with pytest.raises(ModelNotServed, match="the head is missing"):
                bench.residency.require_served(spec)
            with pytest.raises(ModelNotServed, match="the head is missing"):
                await bench.residency.wait(spec, wait_s=0)
            assert bench.loader.models_asked == ["m"]
            assert not bench.residency.is_loaded(spec)

    asyncio.run(story())


def test_a_model_that_could_not_be_loaded_is_tried_again_after_a_rest(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            bench.loader.failures = [LoadFailed("no memory"), LoadFailed("still none")]
            with pytest.raises(ModelNotServed, match="no memory"):
                await bench.residency.wait(spec, wait_s=60)
            bench.clock.advance(TRY_AGAIN_S)
            with pytest.raises(ModelNotServed, match="no memory"):
                bench.residency.require_served(spec)
            bench.clock.advance(1)
            bench.residency.require_served(spec)
            with pytest.raises(ModelNotServed, match="still none"):
                await bench.residency.wait(spec, wait_s=60)
            assert bench.residency.reason(spec) == "still none"
            bench.clock.advance(TRY_AGAIN_S + 1)
            assert (await bench.residency.wait(spec, wait_s=60)).is_usable
            assert bench.residency.reason(spec) is None
            assert bench.loader.models_asked == ["m", "m", "m"]

    asyncio.run(story())


def test_a_bug_in_loading_is_a_reason_too(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            bench.loader.failures = [ValueError("a bug of ours")]
            with pytest.raises((ValueError, ModelNotServed)):
                await bench.residency.wait(spec, wait_s=60)
            assert "a bug of ours" in bench.residency.reason(spec)

    asyncio.run(story())


def test_a_model_whose_file_is_not_here_is_not_served(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec(exists=False)
            with pytest.raises(ModelNotServed, match=r"weights\.gguf is not on this machine"):
                bench.residency.require_served(spec)
            present = bench.spec()
            bench.residency.require_served(present)
            assert bench.residency.reason(present) is None

    asyncio.run(story())


# -- death --------------------------------------------------------------------------------------


def test_a_model_whose_engine_died_is_loaded_again(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            await bench.residency.wait(spec, wait_s=60)
            await bench.kill(spec)
            engine = bench.residency.ready(spec)
            assert (await engine.submit(ONE, key="k").result()).shape == (1, 4)
            assert bench.loader.models_asked == ["m", "m"]

    asyncio.run(story())


def test_a_restarting_model_says_so_and_how_long_its_last_load_took(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            bench.loader.gate.clear()
            assert bench.residency.ready(spec) is None
            bench.clock.advance(7)
            bench.loader.gate.set()
            await bench.residency.wait(spec, wait_s=60)
            bench.loader.gate.clear()
            await bench.kill(spec, reload=False)
            with pytest.raises(EngineRestarting) as restarting:
                await bench.residency.wait(spec, wait_s=0)
            assert restarting.value.retry_after_s == 8

    asyncio.run(story())


def test_a_model_that_dies_twice_within_ten_minutes_is_set_aside_until_it_is_forgiven(opened):
    async def story():
        async with opened() as bench:
            spec, other = bench.spec(), bench.spec("other", file="other.gguf")
            await bench.residency.wait(other, wait_s=60)
            await bench.residency.wait(spec, wait_s=60)
            await bench.kill(spec)
            await bench.kill(spec, reload=False)
            why = "its engine died 2 times within 10 minutes (the fake engine was told to die)"
            for _ in range(2):
                with pytest.raises(ModelNotServed) as refused:
                    await bench.residency.wait(spec, wait_s=0)
                assert why in refused.value.message
                bench.clock.advance(DEATHS_WITHIN_S + TRY_AGAIN_S)
            assert why in bench.residency.reason(spec)
            assert bench.residency.is_loaded(other)
            assert bench.loader.models_asked == ["other", "m", "m"]
            bench.residency.pool.forgive(spec)
            assert bench.residency.reason(spec) is None
            await bench.residency.wait(spec, wait_s=60)
            assert bench.residency.is_loaded(spec)
            await bench.kill(spec)  # as if it had never died

    asyncio.run(story())


def test_a_model_that_is_lost_while_nobody_calls_it_is_loaded_again_at_once(opened):
    async def story():
        async with opened() as bench:
            spec, lost = bench.spec(), []
            open_model = bench.loader.open_model
            bench.loader.open_model = lambda spec, progress: dataclasses.replace(
                open_model(spec, progress), notify=lost.append
            )
            engine = await bench.residency.wait(spec, wait_s=60)
            await asyncio.to_thread(lost[0], EngineDied("its process was ended by SIGKILL"))
            await asyncio.sleep(0)
            assert not engine.is_usable
            assert str(engine.death) == "its process was ended by SIGKILL"
            assert await bench.residency.wait(spec, wait_s=60) is not engine
            assert bench.loader.models_asked == ["m", "m"]
            lost[0](EngineDied("late"))  # of an engine that is gone
            assert bench.residency.is_loaded(spec)

    asyncio.run(story())


def test_a_model_that_dies_now_and_then_is_loaded_again_each_time(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            await bench.residency.wait(spec, wait_s=60)
            for _ in range(4):
                await bench.kill(spec)
                bench.clock.advance(DEATHS_WITHIN_S + 1)
            assert bench.residency.is_loaded(spec)

    asyncio.run(story())


def test_a_model_that_cannot_be_loaded_again_is_not_served(opened):
    async def story():
        async with opened() as bench:
            spec = bench.spec()
            await bench.residency.wait(spec, wait_s=60)
            bench.loader.failures = [LoadFailed("the file is gone")]
            await bench.kill(spec, reload=False)
            with pytest.raises(ModelNotServed, match="the file is gone"):
                await bench.residency.wait(spec, wait_s=60)

    asyncio.run(story())


# -- tokenizers ---------------------------------------------------------------------------------


def test_a_tokenizer_is_built_once_for_a_file(opened):
    async def story():
        async with opened() as bench:
            bench.loader.gate.clear()
            specs = [bench.spec("one"), bench.spec("two"), bench.spec("one")]
            waiting = await started(map(bench.residency.encoder, specs))
            bench.loader.gate.set()
            assert len(set(map(id, await asyncio.gather(*waiting)))) == 1
            await bench.residency.encoder(specs[0])
            assert bench.loader.encoders_asked == ["one"]
            assert bench.loader.models_asked == []

    asyncio.run(story())


def test_a_tokenizer_that_cannot_be_built_is_a_model_that_is_not_served(opened):
    async def story():
        async with opened() as bench:
            bench.loader.failures = [LoadFailed("no vocabulary")]
            for _ in range(3):  # remembered, as what the weights fail for is
                with pytest.raises(ModelNotServed, match="no vocabulary"):
                    await bench.residency.encoder(bench.spec())
            assert bench.loader.encoders_asked == ["m"]
            bench.clock.advance(TRY_AGAIN_S + 1)
            assert (await bench.residency.encoder(bench.spec())).frame == Frame(1, 2)

    asyncio.run(story())


def test_a_tokenizer_that_takes_long_to_open_keeps_no_text_of_others_waiting(opened):
    async def story():
        async with opened() as bench:
            bench.loader.gate.clear()
            [opening] = await started([bench.residency.encoder(bench.spec())])
            assert await bench.threads.run(len, "abc") == 3
            assert not opening.done()
            bench.loader.gate.set()
            await opening

    asyncio.run(story())


def test_a_caller_who_leaves_does_not_take_the_tokenizer_with_him(opened):
    async def story():
        async with opened() as bench:
            bench.loader.gate.clear()
            leaves, stays = await started(bench.residency.encoder(bench.spec()) for _ in range(2))
            leaves.cancel()
            await asyncio.wait([leaves])
            bench.loader.gate.set()
            assert (await stays).frame == Frame(1, 2)

    asyncio.run(story())


def test_no_room_to_build_a_tokenizer_is_a_full_queue_and_not_a_missing_model(opened):
    async def story():
        async with opened(Limits(tokenizing_calls_max=1)) as bench:
            gate = threading.Event()
            [busy] = await started([bench.residency._opener.run(gate.wait, 60)])
            with pytest.raises(QueueFull):
                await bench.residency.encoder(bench.spec())
            gate.set()
            await busy
            assert (await bench.residency.encoder(bench.spec())).frame == Frame(1, 2)

    asyncio.run(story())


# -- preloading ---------------------------------------------------------------------------------


def test_preloading_goes_on_after_a_model_that_fails(opened, caplog):
    async def story():
        async with opened() as bench:
            bad, good = bench.spec("bad", file="bad.gguf"), bench.spec("good")
            bench.loader.failures = [LoadFailed("no vocabulary")]
            await bench.residency.preload([bad, good])
            assert bench.residency.is_loaded(good)
            assert not bench.residency.is_loaded(bad)

    asyncio.run(story())
    assert "bad cannot be preloaded" in caplog.text
    assert "no vocabulary" in caplog.text


def test_closing_frees_every_backend(opened):
    async def story():
        async with opened() as bench:
            for name in ("one", "two"):
                await bench.residency.wait(bench.spec(name, file=f"{name}.gguf"), wait_s=60)
        return bench.loader.backends

    backends = asyncio.run(story())
    assert [backend.closed for backend in backends] == [True, True]


# -- memory -------------------------------------------------------------------------------------


MB = 1_000_000


def sized(bench, name, megabytes):
    return bench.spec(name, file=f"{name}.gguf", size=megabytes * MB)


async def loaded(bench, *specs):
    for spec in specs:
        bench.clock.advance(10)  # past the grace of the last one
        await bench.residency.wait(spec, wait_s=60)
        await until(lambda spec=spec: bench.residency.entry(spec).ready_ns)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - threads make it hold
            await asyncio.sleep(0.001)


def here(bench, *specs):
    return [bench.residency.is_loaded(spec) for spec in specs]


def test_the_model_that_was_not_called_for_longest_makes_room(opened):
    async def story():
        async with opened(memory_bytes=25 * MB) as bench:
            a, b, c = (sized(bench, name, 10) for name in "abc")
            await loaded(bench, a, b)
            bench.clock.advance(10)
            bench.residency.ready(a)
            await loaded(bench, c)
            assert here(bench, a, b, c) == [True, False, True]
            assert [backend.closed for backend in bench.loader.backends] == [False, True, False]
            assert bench.residency.pool.taken_bytes == 20 * MB
            await loaded(bench, b)
            assert here(bench, a, b, c) == [False, True, True]

    asyncio.run(story())


def test_a_model_that_comes_waits_until_the_memory_of_another_is_free(opened):
    async def story():
        async with opened(memory_bytes=15 * MB) as bench:
            a, b = sized(bench, "a", 10), sized(bench, "b", 10)
            await loaded(bench, a)
            bench.clock.advance(10)
            with bench.residency.lease(a):
                waiting = asyncio.create_task(bench.residency.wait(b, wait_s=60))
                await asyncio.sleep(0.05)
                assert here(bench, a, b) == [True, False]
                assert bench.residency.entry(b).state == "waiting"
                with pytest.raises(ModelWarming):
                    await bench.residency.wait(b, wait_s=0)
                assert bench.loader.models_asked == ["a"]
            assert (await waiting).is_usable
            assert here(bench, a, b) == [False, True]

    asyncio.run(story())


def test_a_pinned_model_stays_and_a_model_just_loaded_is_not_freed_at_once(opened):
    async def story():
        async with opened(memory_bytes=25 * MB) as bench:
            a, b, c = (sized(bench, name, 10) for name in "abc")
            bench.residency.pin(a, on=True)
            await loaded(bench, a, b)
            assert bench.residency.ready(c) is None
            assert here(bench, a, b) == [True, True]  # b has only just come
            bench.clock.advance(10)
            bench.residency.pool.reconcile()
            await bench.residency.wait(c, wait_s=60)
            assert here(bench, a, b, c) == [True, False, True]
            bench.residency.pin(a, on=False)
            await loaded(bench, b)
            assert here(bench, a, b, c) == [False, True, True]

    asyncio.run(story())


def test_a_model_larger_than_all_memory_is_not_served_and_says_so(opened):
    async def story():
        async with opened(memory_bytes=15 * MB) as bench:
            small, large = sized(bench, "small", 10), sized(bench, "large", 20)
            await loaded(bench, small)
            with pytest.raises(ModelNotServed, match=r"needs 20 MB .* take 15 MB \(memory_mb\)"):
                await bench.residency.wait(large, wait_s=60)
            assert here(bench, small) == [True]

    asyncio.run(story())


def test_a_small_model_does_not_overtake_one_that_waits_for_memory(opened):
    async def story():
        async with opened(memory_bytes=25 * MB) as bench:
            a, large, small = sized(bench, "a", 10), sized(bench, "b", 20), sized(bench, "c", 5)
            await loaded(bench, a)
            bench.clock.advance(10)
            with bench.residency.lease(a):
                first = asyncio.create_task(bench.residency.wait(large, wait_s=60))
                second = asyncio.create_task(bench.residency.wait(small, wait_s=60))
                await asyncio.sleep(0.05)
                assert bench.loader.models_asked == ["a"]
            await asyncio.gather(first, second)
            assert bench.loader.models_asked[:2] == ["a", "b"]

    asyncio.run(story())


def test_unloading_waits_for_the_calls_and_frees_the_tokenizer_too(opened):
    async def story():
        async with opened() as bench:
            a = sized(bench, "a", 10)
            await bench.residency.encoder(a)
            await loaded(bench, a)
            with bench.residency.lease(a):
                leaving = asyncio.create_task(bench.residency.unload(a))
                await asyncio.sleep(0.02)
                assert not leaving.done()
                assert not bench.loader.backends[0].closed
                assert bench.residency.entry(a).state == "leaving"
                with pytest.raises(ModelWarming):
                    await bench.residency.wait(a, wait_s=60)
            await leaving
            assert bench.loader.backends[0].closed
            assert bench.residency.entry(a) is None
            assert bench.residency.pool.taken_bytes == 0
            await bench.residency.encoder(a)
            assert bench.loader.encoders_asked == ["a", "a"]
            await loaded(bench, a)
            assert here(bench, a) == [True]
            await bench.residency.unload(sized(bench, "never", 1))

    asyncio.run(story())


def test_a_model_that_nobody_calls_is_freed_after_its_time(opened, monkeypatch):
    async def story():
        async with opened(idle_s=60) as bench:
            a, b, pinned = (sized(bench, name, 10) for name in "abp")
            bench.residency.pin(pinned, on=True)
            await loaded(bench, a, b, pinned)
            sleep = asyncio.sleep
            monkeypatch.setattr(asyncio, "sleep", lambda _: sleep(0.001))
            running = asyncio.create_task(bench.residency.run())
            bench.clock.advance(55)
            bench.residency.ready(b)
            bench.clock.advance(10)
            await until(lambda: bench.residency.entry(a) is None)
            assert here(bench, b, pinned) == [True, True]
            running.cancel()

    asyncio.run(story())


def test_one_key_does_not_take_all_places_of_those_who_wait(opened):
    async def story():
        async with opened(Limits(warming_waiters_max=4, warming_waiters_per_key_max=2)) as bench:
            spec = bench.spec()
            bench.loader.gate.clear()
            waiting = await started(bench.residency.wait(spec, wait_s=60, key="a") for _ in "ab")
            with pytest.raises(ModelWarming):
                await bench.residency.wait(spec, wait_s=60, key="a")
            waiting += await started([bench.residency.wait(spec, wait_s=60, key="b")])
            bench.loader.gate.set()
            assert len(await asyncio.gather(*waiting)) == 3
            assert bench.residency.entry(spec).waiters == {}

    asyncio.run(story())


def test_load_times_are_known_after_a_restart(tmp_path):
    from appliance.scheduler.load_times import LoadTimes

    path = tmp_path / "load-times.json"
    bench = Bench(tmp_path, Limits())
    spec = bench.spec(size=3 * LOAD_BYTES_PER_S)
    assert LoadTimes(path).expected_s(spec) == 3
    LoadTimes(path).learn(spec, 7.25)
    assert LoadTimes(path).expected_s(spec) == 7.25
    path.write_text("not json")
    assert LoadTimes(path).expected_s(spec) == 3
    bench.threads.close()
