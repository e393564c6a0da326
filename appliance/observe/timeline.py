"""Timeline: the time that histories are kept by: it never goes back.

Owns what a clock that is set forward or back means for a history. Within a process time advances by
the monotonic clock and follows the wall clock forward alone: when a clock is set back, what comes
next still follows what came before. The next process begins where the last history ends, if its
clock is behind that by less than a day.
"""

from appliance.core.clock import STEP_BACK_MAX_US, Clock

US_PER_S, NS_PER_S = 1_000_000, 1_000_000_000
BEHIND_MAX_S = STEP_BACK_MAX_US // US_PER_S
FOLLOW_FROM_S = 2
"""How far ahead the wall clock is when it is followed: a machine that slept, or was set."""


class Timeline:
    """Seconds since the Unix epoch, about; call on one thread."""

    def __init__(self, clock: Clock, last_s: int = 0) -> None:
        """`last_s`: when the last minute began that an earlier process has counted; 0: none has."""
        self._clock = clock
        now_s = clock.wall_us() // US_PER_S
        is_behind = now_s < last_s <= now_s + BEHIND_MAX_S
        self._began_s = last_s if is_behind else now_s
        self._began_ns = clock.monotonic_ns()

    def now_s(self) -> int:
        """Return the seconds now; never less than before."""
        now_ns = self._clock.monotonic_ns()
        now_s = self._began_s + (now_ns - self._began_ns) // NS_PER_S
        wall_s = self._clock.wall_us() // US_PER_S
        if wall_s >= now_s + FOLLOW_FROM_S:
            self._began_s, self._began_ns = wall_s, now_ns
            return wall_s
        return now_s
