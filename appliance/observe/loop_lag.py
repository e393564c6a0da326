"""LoopLag: how late the event loop wakes what sleeps on it.

Owns the measurement that a server's answers depend on: whatever holds the loop holds every
connection.
"""

import asyncio
from collections.abc import Callable

from appliance.core.clock import Clock

EVERY_S = 0.05
"""Between two looks: twenty wake-ups a second cost a thousandth of a core."""
NS_PER_S = 1_000_000_000


class LoopLag:
    """Reports again and again by how many seconds a short sleep took too long."""

    def __init__(self, clock: Clock, note: Callable[[float], None]) -> None:
        self._clock = clock
        self._note = note

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            began_ns = self._clock.monotonic_ns()
            await asyncio.sleep(EVERY_S)
            passed_s = (self._clock.monotonic_ns() - began_ns) / NS_PER_S
            self._note(max(0.0, passed_s - EVERY_S))
