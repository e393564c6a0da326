import asyncio
import time

import pytest

from appliance.core.clock import SystemClock
from appliance.observe.loop_lag import EVERY_S, LoopLag
from appliance.observe.metrics import Metrics


def hold_the_loop(seconds):
    time.sleep(seconds)


def test_what_holds_the_loop_is_noted_as_its_lag():
    async def story():
        seen, noted = [], asyncio.Event()

        def note(seconds):
            seen.append(seconds)
            noted.set()

        task = asyncio.create_task(LoopLag(SystemClock(), note).run())
        await asyncio.sleep(0)
        hold_the_loop(EVERY_S * 4)
        await asyncio.wait_for(noted.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen[0] >= EVERY_S * 2
        assert all(each >= 0 for each in seen)

    asyncio.run(story())


def test_lags_are_a_histogram():
    metrics = Metrics()
    for seconds in (0.0001, 0.03, 0.2):
        metrics.note_lag(seconds)
    text = metrics.render("")[0].decode()
    assert 'gigarouter_event_loop_lag_seconds_bucket{le="0.05"} 2.0' in text
    assert "gigarouter_event_loop_lag_seconds_count 3.0" in text
