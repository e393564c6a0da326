"""Clock: the one door to time, so that tests can own it.

Owns reading the wall clock and the monotonic clock. It knows no sleeping: waiting is done by
whoever owns the thread or the loop.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

MICROSECONDS_PER_DAY = 86_400_000_000
STEP_BACK_MAX_US = 25 * 3_600_000_000
"""A time zone mistaken for another, and a little."""


class Clock(Protocol):
    """What the appliance asks of time."""

    def wall_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never run backwards; the origin has no meaning."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1000

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never run backwards."""
        return time.perf_counter_ns()


class SteadyClock:
    """A clock whose wall time never goes back by up to a day, within one process or between two.

    A day's budget is not renewed, and an expired key not revived, by setting the machine's clock
    back. What goes back further than `STEP_BACK_MAX_US` was wrong before, and is followed.
    """

    def __init__(self, clock: Clock, seen_us: int) -> None:
        """`seen_us` is the latest time that an earlier process knew; 0: none."""
        self._clock = clock
        self._latest_us = seen_us

    def wall_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        now_us = self._clock.wall_us()
        if not now_us < self._latest_us <= now_us + STEP_BACK_MAX_US:
            self._latest_us = now_us
        return self._latest_us

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never run backwards."""
        return self._clock.monotonic_ns()


def utc_day(wall_us: int) -> int:
    """Return the number of whole UTC days since the epoch."""
    return wall_us // MICROSECONDS_PER_DAY


def seconds_to_midnight(wall_us: int) -> int:
    """Return whole seconds until the next UTC midnight, at least 1."""
    left_us = MICROSECONDS_PER_DAY - wall_us % MICROSECONDS_PER_DAY
    return max(1, -(-left_us // 1_000_000))


def stamp(wall_us: int) -> str:
    """Return a moment as a file's name may hold it: `20260131T235959Z`."""
    return (iso(wall_us) or "").replace("-", "").replace(":", "")


def stamped_us(text: str) -> int:
    """Return the moment that `stamp` wrote.

    Raises:
        ValueError: it is no such text.
    """
    moment = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000


def iso(wall_us: int | None) -> str | None:
    """Return RFC 3339 text in UTC with whole seconds, or None for None."""
    if wall_us is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=wall_us // 1_000_000)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
