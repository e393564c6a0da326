"""A file that nobody tried is tried before it is loaded, and meanwhile keeps nobody else waiting."""

import asyncio
from types import SimpleNamespace

import pytest

from appliance.core.errors import (
    Draining,
    ModelNotServed,
    ModelWarming,
    RetryableError,
    TrialUnfinished,
)
from appliance.engine import screening as module
from appliance.engine.screening import Screening
from appliance.engine.trial_report import TrialReport
from appliance.scheduler.model_pool import NS_PER_S, TRY_AGAIN_S
from appliance.scheduler.pool_entry import weights_key
from appliance.store.digests import Digests
from tests.models import write_tiny_gguf
from tests.unit.engine.test_screening import StandIn
from tests.unit.scheduler.test_residency import opened, started  # noqa: F401 - a fixture


@pytest.fixture
def trials(tmp_path, monkeypatch):
    """Trials that find what is set, once they are let; the screening that runs them."""
    monkeypatch.setattr(module, "Trial", StandIn)
    StandIn.found, StandIn.asked = [], []
    StandIn.ended.clear()
    StandIn.begun.clear()
    screening = Screening(tmp_path / "trials", Digests(None))
    yield SimpleNamespace(
        screening=screening, let=StandIn.ended.set, asked=lambda: StandIn.asked, begun=StandIn.begun
    )
    StandIn.ended.set()
    screening.close()


def untried(bench, name="m"):
    spec = bench.spec(name, file=f"{name}.gguf", exists=False)
    write_tiny_gguf(spec.path, seed=len(name))
    return spec


def run(opened, trials, story):  # noqa: F811 - a fixture
    async def within():
        async with opened(screening=trials.screening) as bench:
            try:
                await asyncio.wait_for(story(bench, bench.residency), 60)
            finally:
                bench.residency.drain()
                StandIn.ended.set()

    asyncio.run(within())


def test_a_call_that_does_not_wait_is_told_that_the_file_is_tried(opened, trials):  # noqa: F811
    async def story(bench, residency):
        spec = untried(bench)
        for asked in (residency.encoder(spec, wait_s=0), residency.wait(spec, wait_s=0)):
            with pytest.raises(ModelWarming, match="tried") as caught:
                await asked
            assert caught.value.retry_after_s > 0
        assert residency.entry(spec).state == "trying"
        assert bench.loader.models_asked == bench.loader.encoders_asked == []
        trials.let()
        engine = await residency.wait(spec, wait_s=60)
        assert await residency.encoder(spec, wait_s=60) is not None
        assert residency.ready(spec) is engine
        assert trials.asked() == ["m.gguf"]

    run(opened, trials, story)


def test_untried_files_keep_nobody_else_waiting(opened, trials):  # noqa: F811
    async def story(bench, residency):
        waiting = await started(
            residency.encoder(untried(bench, name), wait_s=60, key=name) for name in ("a", "bb")
        )
        other = bench.spec("other", file="other.gguf")
        key = weights_key(other)
        residency.pool.is_tried = lambda spec: weights_key(spec) == key  # it was tried before
        residency.pool._screening = SimpleNamespace(
            is_tried=residency.pool.is_tried, begin=trials.screening.begin, marker=None
        )
        residency._screening = None
        await residency.encoder(other)
        assert await residency.wait(other, wait_s=60) is not None
        assert not any(task.done() for task in waiting)
        trials.let()
        await asyncio.gather(*waiting)

    run(opened, trials, story)


def test_a_file_that_fails_its_trial_is_not_served_and_not_tried_again(opened, trials):  # noqa: F811
    async def story(bench, residency):
        spec = untried(bench)
        StandIn.found = [TrialReport(reason="it crashes")]
        trials.let()
        for _ in range(2):
            with pytest.raises(ModelNotServed, match="it crashes"):
                await residency.encoder(spec, wait_s=60)
        assert residency.reason(spec) == "it crashes"
        assert trials.asked() == ["m.gguf"]
        assert bench.loader.models_asked == []

    run(opened, trials, story)


def test_a_trial_that_ended_for_no_fault_of_the_file_is_run_again_after_a_rest(opened, trials):  # noqa: F811
    async def story(bench, residency):
        spec = untried(bench)
        StandIn.found = [TrialUnfinished("m.gguf", "there was no memory")]
        trials.let()
        with pytest.raises(ModelNotServed, match="no memory; try again"):
            await residency.encoder(spec, wait_s=60)
        with pytest.raises(ModelNotServed, match="no memory"):
            await residency.wait(spec, wait_s=60)
        assert trials.asked() == ["m.gguf"]
        bench.clock.mono_ns += (TRY_AGAIN_S + 1) * NS_PER_S
        assert await residency.wait(spec, wait_s=60) is not None
        assert trials.asked() == ["m.gguf"] * 2

    run(opened, trials, story)


def test_a_drain_ends_the_trial_and_tells_those_who_wait_to_come_back(opened, trials):  # noqa: F811
    async def story(bench, residency):
        spec = untried(bench)
        waiting = await started(
            [residency.encoder(spec, wait_s=60), residency.wait(spec, wait_s=60, key="other")]
        )
        await asyncio.to_thread(trials.begun.wait, 30)
        residency.drain()
        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, RetryableError), found
        with pytest.raises((Draining, ModelWarming)):
            await residency.encoder(spec, wait_s=1)
        assert StandIn.at_once == 0 or not trials.screening.running(spec).done.done()
        assert trials.screening.known(spec) is None

    run(opened, trials, story)
