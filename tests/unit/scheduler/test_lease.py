import asyncio
import threading

import pytest

from appliance.core.errors import QueueFull
from appliance.scheduler.lease import Lease, Leases
from appliance.scheduler.threads import ThreadPool

KEY = ("a file", "mean", False, None)


@pytest.fixture
def pool():
    made = ThreadPool(workers=2, calls_max=2)
    yield made
    made.close()


def run(story):
    return asyncio.run(asyncio.wait_for(story(), 30))


def test_a_model_is_free_when_the_last_lease_on_it_ends(pool):
    async def story():
        freed = []
        leases = Leases(freed.append)
        first, second = (Lease(leases, KEY, pool) for _ in range(2))
        assert (leases.count(KEY), repr(leases)) == (2, "<Leases [2 on 1 models]>")
        first.release()
        assert freed == []
        waiting = asyncio.create_task(leases.all_free())
        await asyncio.sleep(0)
        assert not waiting.done()
        second.release()
        await waiting
        assert (freed, leases.count(KEY)) == ([KEY], 0)

    run(story)


def test_a_call_does_not_fail_because_what_follows_its_lease_does(pool, caplog):
    async def story():
        def fails(_):
            raise RuntimeError("can't start new thread")

        leases = Leases(fails)
        Lease(leases, KEY, pool).release()
        await leases.all_free()
        assert leases.count(KEY) == 0

    run(story)
    assert "can't start new thread" in caplog.text


def test_a_lease_lives_until_its_threads_have_returned_though_the_call_is_cancelled(pool):
    async def story():
        freed, gate, entered = [], threading.Event(), threading.Event()
        leases = Leases(freed.append)
        lease = Lease(leases, KEY, pool)

        def work():
            entered.set()
            gate.wait(30)

        call = asyncio.create_task(lease.in_thread(work))
        await asyncio.to_thread(entered.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        lease.release()
        assert (leases.count(KEY), freed) == (1, [])
        gate.set()
        await leases.all_free()
        assert freed == [KEY]

    run(story)


def test_a_call_that_waits_for_a_thread_and_is_cancelled_never_begins(pool):
    async def story():
        gate, ran = threading.Event(), []
        full = ThreadPool(workers=1, calls_max=2)
        leases = Leases(lambda _: None)
        lease = Lease(leases, KEY, full)
        first = asyncio.create_task(lease.in_thread(gate.wait, 30))
        second = asyncio.create_task(lease.in_thread(ran.append, "second"))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await lease.in_thread(ran.append, "third")
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.set()
        assert await first is True
        lease.release()
        await leases.all_free()
        assert (ran, full.is_idle) == ([], True)
        full.close()

    run(story)


def test_a_thread_that_returns_after_the_loop_has_ended_harms_nobody(pool):
    gate = threading.Event()

    async def story():
        lease = Lease(Leases(lambda _: None), KEY, pool)
        call = asyncio.create_task(lease.in_thread(gate.wait, 30))
        await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    run(story)
    gate.set()
    pool.close()
    assert pool.is_idle
