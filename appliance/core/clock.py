"""Clock: the one door to time, so that tests can own it.

Owns reading the wall clock and the monotonic clock. Deliberately knows no sleeping: waiting is
done by whoever owns the thread or the loop.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

MICROSECONDS_PER_DAY = 86_400_000_000


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


def utc_day(wall_us: int) -> int:
    """Return the number of whole UTC days since the epoch."""
    return wall_us // MICROSECONDS_PER_DAY


def seconds_to_midnight(wall_us: int) -> int:
    """Return whole seconds until the next UTC midnight, at least 1."""
    left_us = MICROSECONDS_PER_DAY - wall_us % MICROSECONDS_PER_DAY
    return max(1, -(-left_us // 1_000_000))


def iso(wall_us: int | None) -> str | None:
    """Return RFC 3339 text in UTC with whole seconds, or None for None."""
    if wall_us is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=wall_us // 1_000_000)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
