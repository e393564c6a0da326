"""The workers that tokenize: large stacks, and no more calls than are allowed."""

import asyncio
import ctypes
import sys
import threading
import time

import pytest

from appliance.core.errors import QueueFull
from appliance.scheduler.threads import STACK_BYTES, ThreadPool


@pytest.fixture
def pool():
    made = ThreadPool(workers=2, calls_max=3)
    yield made
    made.close()


def stack_bytes() -> int:
    """The size of the calling thread's own stack, as the C library knows it."""
    library = ctypes.CDLL(None)
    library.pthread_self.restype = ctypes.c_void_p
    attributes = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t()
    library.pthread_getattr_np(ctypes.c_void_p(library.pthread_self()), attributes)
    library.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    return size.value


@pytest.mark.skipif(sys.platform != "linux", reason="pthread_getattr_np is glibc's")
def test_every_worker_has_a_large_stack(pool):
    together = threading.Barrier(2)

    def measure():
        together.wait()  # so that both workers are asked
        return threading.get_ident(), stack_bytes()

    async def story():
        return await asyncio.gather(pool.run(measure), pool.run(measure))

    found = dict(asyncio.run(story()))
    assert len(found) == 2
    assert all(size >= STACK_BYTES for size in found.values())


def test_other_threads_keep_their_stack():
    before = threading.stack_size()
    ThreadPool(workers=1, calls_max=1).close()
    assert threading.stack_size() == before


def test_arguments_go_in_and_the_result_comes_back_from_another_thread(pool):
    here, there = threading.get_ident(), asyncio.run(pool.run(threading.get_ident))
    assert here != there
    assert asyncio.run(pool.run(divmod, 17, 5)) == (3, 2)


def test_an_error_reaches_its_caller_and_frees_the_place(pool):
    async def story():
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await pool.run(divmod, 1, 0)

    asyncio.run(story())
    assert repr(pool) == "<ThreadPool [0/3 calls]>"


def test_more_calls_than_allowed_are_refused_and_later_ones_are_not(pool):
    gate = threading.Event()

    async def story():
        waiting = [asyncio.create_task(pool.run(gate.wait, 30)) for _ in range(3)]
        await asyncio.sleep(0)
        assert repr(pool) == "<ThreadPool [3/3 calls]>"
        with pytest.raises(QueueFull) as refused:
            await pool.run(gate.wait)
        assert refused.value.retry_after_s == 1
        gate.set()
        assert await asyncio.gather(*waiting) == [True] * 3
        assert await pool.run(gate.wait) is True

    asyncio.run(story())


def test_a_cancelled_call_gives_its_place_back(pool):
    gate = threading.Event()

    async def story():
        waiting = asyncio.create_task(pool.run(gate.wait, 30))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        async with asyncio.timeout(30):
            while not pool.is_idle:  # noqa: ASYNC110 - the thread returns in its own time
                await asyncio.sleep(0.001)

    asyncio.run(story())
    assert repr(pool) == "<ThreadPool [0/3 calls]>"


def test_closing_lets_a_worker_finish_what_it_began():
    pool = ThreadPool(workers=1, calls_max=9)
    began, gate, done = threading.Event(), threading.Event(), threading.Event()

    def work():
        began.set()
        gate.wait(30)
        done.set()

    async def story():
        working = asyncio.create_task(pool.run(work))
        await asyncio.to_thread(began.wait)
        closing = asyncio.create_task(asyncio.to_thread(pool.close))
        gate.set()
        await asyncio.gather(working, closing)

    asyncio.run(story())
    assert done.is_set()


def test_keys_take_turns_by_what_their_calls_cost():
    async def story():
        single = ThreadPool(workers=1, calls_max=100)
        gate, order = threading.Event(), []
        held = single.submit(gate.wait, 60)
        loud = [single.submit(order.append, f"loud {n}", key="loud", cost=100) for n in range(5)]
        quiet = [single.submit(order.append, f"quiet {n}", key="quiet", cost=10) for n in range(3)]
        gate.set()
        for future in (held, *loud, *quiet):
            await asyncio.wrap_future(future)
        single.close()
        # Each begins with one; then the quiet key has cost less, whatever came first.
        assert order == [
            "loud 0",
            "quiet 0",
            "quiet 1",
            "quiet 2",
            *(f"loud {n}" for n in (1, 2, 3, 4)),
        ]
        assert single.is_idle
        assert single._finish_tags.keys() <= {"loud", ""}

    asyncio.run(story())


def test_one_key_cannot_take_all_the_places():
    async def story():
        single = ThreadPool(workers=1, calls_max=100, per_key_max=2)
        gate = threading.Event()
        waiting = [single.submit(gate.wait, 60, key="loud") for _ in range(2)]
        with pytest.raises(QueueFull):
            single.submit(gate.wait, 60, key="loud")
        waiting.append(single.submit(gate.wait, 60, key="quiet"))
        gate.set()
        for future in waiting:
            await asyncio.wrap_future(future)
        single.submit(gate.wait, 60, key="loud").result(60)
        single.close()

    asyncio.run(story())


def test_what_waits_when_a_pool_is_closed_is_cancelled():
    single = ThreadPool(workers=1, calls_max=9)
    gate = threading.Event()
    running, waiting = single.submit(gate.wait, 60), single.submit(gate.wait, 60)
    while not running.running():
        time.sleep(0.001)
    single.close(wait=False)
    assert waiting.cancelled()
    gate.set()
    assert running.result(60)
    with pytest.raises(RuntimeError):
        single.submit(gate.wait, 60)
    assert single.is_idle
