"""A loaded model is computed as another tuning says, without a call that notices."""

import asyncio

import msgspec

from appliance.core.errors import EngineDied, LoadFailed
from tests.unit.scheduler.test_engine import (
    Stepped,
    SteppedWeights,
    all_of,
    bounded,
    plugged,
    running,
    submit,
    tuned,
    turned,
)


def freed(count):
    backends = [Stepped() for _ in range(count)]
    for backend in backends:
        backend.free()
    return backends


def retune(engine, tuning):
    with engine.worker_group.held() as model:
        assert model is not None
        engine.worker_group.retune(tuning)


def test_threads_and_the_end_of_a_batch_hold_for_the_next_batch_of_the_same_context():
    async def story():
        [backend] = freed(1)
        async with running(backend, tuning=tuned(1)) as engine:
            await all_of([submit(engine, 6)])
            tuning = tuned(1, max_batch_tokens=40)
            retune(engine, msgspec.structs.replace(tuning, threads=1, threads_alone=3))
            await all_of([submit(engine, 6, first=10)])
            assert backend.threads[0] == 5
            assert set(backend.threads[1:]) == {1, 3}
            assert len(backend.bins[0]) == 6
            assert all(len(each) <= 4 for each in backend.bins[1:])

    asyncio.run(story())


def test_workers_that_are_too_many_end_and_the_others_go_on():
    async def story():
        first, second = freed(2)
        async with running(first, second) as engine:
            retune(engine, tuned(1))
            await turned(lambda: engine.workers[0] == 1)
            assert [first.closed, second.closed].count(True) == 1
            await all_of([submit(engine, 3)])

    asyncio.run(story())


def test_contexts_of_another_attention_take_over_one_by_one_and_no_call_is_lost():
    async def story():
        former = [Stepped(), Stepped()]
        next_ones = freed(2)
        weights = SteppedWeights(*former, *next_ones)
        async with running(*former, tuning=tuned(2), weights=weights) as engine:
            jobs = await plugged(engine, *former)
            await asyncio.to_thread(retune, engine, tuned(2, flash_attention=False))
            await turned(lambda: engine.workers[0] == 4)
            assert not any(each.closed for each in former)
            jobs.append(submit(engine, 3))
            for each in former:
                each.free()
            await all_of(jobs)
            await turned(lambda: all(each.closed for each in former))
            assert engine.workers[0] == 2
            assert weights.flash_asked == [None, None, False, False]
            await all_of([submit(engine, 2, first=20)])
            assert not any(each.closed for each in next_ones)
        assert all(each.closed for each in next_ones)

    asyncio.run(story())


def test_a_context_that_cannot_be_opened_leaves_the_former_one_at_work():
    async def story():
        [backend] = freed(1)
        weights = SteppedWeights(backend, LoadFailed("no memory"))
        async with running(backend, weights=weights, tuning=tuned(1)) as engine:
            retune(engine, tuned(1, flash_attention=False))
            await turned(lambda: len(weights.flash_asked) == 2)
            await all_of([submit(engine, 2)])
            assert engine.workers[0] == 1
            assert not backend.closed

    asyncio.run(story())


def test_a_model_that_is_held_is_freed_after_its_engine_died_and_not_before():
    async def story():
        [backend] = freed(1)
        weights = SteppedWeights(backend)
        async with running(backend, weights=weights, tuning=tuned(1)) as engine:
            with engine.worker_group.held() as model:
                assert model.weights is weights
                engine.model_lost(EngineDied("killed"))
                await turned(lambda: backend.closed)
                assert not weights.closed
            await turned(lambda: weights.closed)
            with engine.worker_group.held() as model:
                assert model is None

    asyncio.run(story())


def test_an_engine_that_is_closed_holds_nothing_any_more():
    async def story():
        [backend] = freed(1)
        async with running(backend, tuning=tuned(1)) as engine:
            await bounded(asyncio.to_thread(engine.close))
            with engine.worker_group.held() as model:
                assert model is None

    asyncio.run(story())
