import asyncio

import pytest

from appliance.core.cancellation import uninterrupted


def run(story):
    return asyncio.run(asyncio.wait_for(story(), 30))


def test_the_result_or_the_error_of_the_work_is_the_callers():
    async def work(error=None):
        await asyncio.sleep(0)
        if error:
            raise error
        return 5

    async def story():
        assert await uninterrupted(work()) == 5
        with pytest.raises(ValueError, match="no"):
            await uninterrupted(work(ValueError("no")))

    run(story)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_the_work_ends_before_the_cancellation_is_raised_however_often_it_comes(times, fails):
    async def story():
        gate, ended = asyncio.Event(), []

        async def work():
            await gate.wait()
            ended.append(True)
            if fails:
                raise ValueError("an error that nobody is there to be told of")

        caller = asyncio.create_task(uninterrupted(work()))
        await asyncio.sleep(0)
        for _ in range(times):
            caller.cancel()
            await asyncio.sleep(0)
            assert not caller.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended == [True]

    run(story)


def test_a_timeout_around_it_is_still_a_timeout():
    async def story():
        gate, ended = asyncio.Event(), []

        async def work():
            await gate.wait()
            ended.append(True)

        async def bounded():
            async with asyncio.timeout(0.01):
                await uninterrupted(work())

        caller = asyncio.create_task(bounded())
        await asyncio.wait((caller,), timeout=0.05)
        assert not caller.done()
        gate.set()
        with pytest.raises(TimeoutError):
            await caller
        assert ended == [True]

    run(story)
