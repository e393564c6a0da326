"""A model is measured while nobody calls, and a call that comes ends that."""

import asyncio
import threading
from contextlib import asynccontextmanager

import msgspec
import pytest

from appliance.core.errors import InferenceFailed
from appliance.engine.tuning import default_tuning
from appliance.scheduler import idle_calibration
from appliance.scheduler.idle_calibration import REST_S
from tests.unit.scheduler.test_residency import ONE, until
from tests.unit.scheduler.test_residency import opened as opened  # noqa: PLC0414 - a fixture

FOUND = msgspec.structs.replace(default_tuning(cores=1), threads_alone=7, origin="calibrated")


@pytest.fixture
def loaded(opened, monkeypatch):
    """Yield a bench with a loaded model, whose measurement is what is given."""
    monkeypatch.setattr(idle_calibration, "LOOK_S", 0.001)
    monkeypatch.setattr(idle_calibration, "WATCH_S", 0.001)

    @asynccontextmanager
    async def loaded(measure):
        async with opened() as bench:
            bench.loader.measures["m"] = measure
            engine = await bench.residency.wait(bench.spec(), wait_s=60)
            chore = asyncio.create_task(bench.residency.calibration.run())
            try:
                yield bench, engine
            finally:
                chore.cancel()
                await asyncio.gather(chore, return_exceptions=True)
            assert not bench.residency.pool.leases.count(next(iter(bench.residency.pool.entries)))

    return loaded


async def looks(count=20):
    """Let the chore look some times more."""
    await asyncio.sleep(0.002 * count)


def test_what_was_found_in_a_quiet_moment_holds_from_then_on_and_is_not_measured_again(loaded):
    asked = []

    def measure(weights, is_wanted):
        asked.append((weights, is_wanted()))
        return FOUND

    async def story():
        async with loaded(measure) as (bench, engine):
            await until(lambda: engine.model.tuning is FOUND)
            await looks()
            assert asked == [(engine.model.weights, True)]
            assert await engine.submit(ONE, key="k").result() is not None
            assert bench.loader.backends[0].threads == [7]

    asyncio.run(story())


def test_a_call_that_comes_ends_the_measurement_which_begins_anew_when_it_is_quiet(loaded):
    ends, begun = [], threading.Semaphore(0)

    def measure(_weights, is_wanted):
        begun.release()
        if ends:
            return FOUND
        while is_wanted():
            pass
        ends.append("not wanted")
        return None

    async def story():
        async with loaded(measure) as (_, engine):
            await asyncio.to_thread(begun.acquire, timeout=30)
            await engine.submit(ONE, key="k").result()
            await until(lambda: ends == ["not wanted"])
            await until(lambda: engine.model.tuning is FOUND)

    asyncio.run(story())


def test_the_model_is_given_back_after_the_thread_however_often_it_is_cancelled(
    opened, monkeypatch
):
    monkeypatch.setattr(idle_calibration, "LOOK_S", 0.001)
    begun, gate = threading.Event(), threading.Event()

    def measure(_weights, _is_wanted):
        begun.set()
        assert gate.wait(30)

    async def story():
        async with opened() as bench:
            bench.loader.measures["m"] = measure
            await bench.residency.wait(bench.spec(), wait_s=60)
            chore = asyncio.create_task(bench.residency.calibration.run())
            await asyncio.to_thread(begun.wait, 30)
            leases, [weights] = bench.residency.pool.leases, bench.residency.pool.entries
            for _ in range(3):
                chore.cancel()
                await asyncio.sleep(0.01)
                assert leases.count(weights) == 1
            gate.set()
            with pytest.raises(asyncio.CancelledError):
                await chore
            assert leases.count(weights) == 0

    asyncio.run(story())


def test_while_another_model_is_loaded_nothing_is_measured(loaded):
    asked = []

    def measure(_weights, _is_wanted):
        asked.append(1)
        return FOUND

    async def story():
        async with loaded(measure) as (bench, _):
            await until(lambda: asked)
            bench.loader.gate.clear()
            bench.loader.measures["other"] = measure
            other = bench.spec("other", file="other.gguf")
            loading = asyncio.create_task(bench.residency.wait(other, wait_s=60))
            await until(lambda: "other" in bench.loader.models_asked)
            await looks()
            assert len(asked) == 1
            bench.loader.gate.set()
            await loading
            await until(lambda: len(asked) == 2)

    asyncio.run(story())


def test_a_measurement_that_decides_nothing_is_made_again_after_a_rest(loaded):
    asked = []

    def measure(_weights, _is_wanted):
        asked.append(1)

    async def story():
        async with loaded(measure) as (bench, _):
            for count, rest_s in ((1, REST_S), (2, 2 * REST_S)):
                await until(lambda count=count: len(asked) == count)
                await looks()
                bench.clock.advance(rest_s - 1)
                await looks()
                assert len(asked) == count
                bench.clock.advance(1)
            await until(lambda: len(asked) == 3)

    asyncio.run(story())


@pytest.mark.parametrize("error", [InferenceFailed("no"), OSError(24, "files"), RuntimeError("?")])
def test_a_model_that_cannot_be_measured_is_computed_as_before(loaded, error):
    asked = []

    def measure(_weights, _is_wanted):
        asked.append(1)
        raise error

    async def story():
        async with loaded(measure) as (bench, engine):
            await until(lambda: asked)
            await looks()
            bench.clock.advance(10 * REST_S)
            await looks()
            assert asked == [1]
            assert await engine.submit(ONE, key="k").result() is not None
            assert engine.model.tuning.origin == "default"

    asyncio.run(story())


def test_a_model_that_is_measured_stays_until_the_thread_is_back(loaded):
    begun, go = threading.Event(), threading.Event()
    closed = []

    def measure(weights, _is_wanted):
        begun.set()
        go.wait(30)
        closed.append(weights.closed)

    async def story():
        async with loaded(measure) as (bench, _):
            await asyncio.to_thread(begun.wait, 30)
            unloading = asyncio.create_task(bench.residency.unload(bench.spec()))
            await looks()
            assert not unloading.done()
            go.set()
            await unloading
            assert closed == [False]
            assert bench.loader.backends[0].closed
            await bench.residency.wait(bench.spec(), wait_s=60)

    asyncio.run(story())
