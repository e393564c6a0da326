"""Clock: the only module that reads the time, so that tests can replace it.

Owns reading the wall clock and the monotonic clock. Sleeping is not part of it: the code that owns
the thread or the event loop waits.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

MICROSECONDS_PER_DAY = 86_400_000_000
STEP_BACK_MAX_US = 25 * 3_600_000_000
"""The largest error that a wrong time zone makes is 24 hours; one more for daylight saving."""


class Clock(Protocol):
    """The readings of time that the appliance needs."""

    def wall_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never decrease; only differences have a meaning."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1000

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never decrease."""
        return time.perf_counter_ns()


class SteadyClock:
    """A clock whose wall time never goes back by up to a day, within one process or between two.

    Setting the machine's clock back neither renews a day's budget nor makes an expired key valid. A
    step back by more than `STEP_BACK_MAX_US` corrects a clock that was wrong, and is followed.
    """

    def __init__(self, clock: Clock, seen_us: int) -> None:
        """`seen_us` is the latest time that an earlier process recorded; 0: none."""
        self._clock = clock
        self._latest_us = seen_us

    def wall_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        now_us = self._clock.wall_us()
        if not now_us < self._latest_us <= now_us + STEP_BACK_MAX_US:
            self._latest_us = now_us
        return self._latest_us

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never decrease."""
        return self._clock.monotonic_ns()


def utc_day(wall_us: int) -> int:
    """Return the number of whole UTC days since the epoch."""
    return wall_us // MICROSECONDS_PER_DAY


def seconds_to_midnight(wall_us: int) -> int:
    """Return whole seconds until the next UTC midnight, at least 1."""
    left_us = MICROSECONDS_PER_DAY - wall_us % MICROSECONDS_PER_DAY
    return max(1, -(-left_us // 1_000_000))


def stamp(wall_us: int) -> str:
    """Return a moment in the form that is used in file names: `20260131T235959Z`."""
    return (iso(wall_us) or "").replace("-", "").replace(":", "")


def stamped_us(text: str) -> int:
    """Return the microseconds of a text in the form of `stamp`.

    Raises:
        ValueError: the text has another form.
    """
    moment = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000


def iso(wall_us: int | None) -> str | None:
    """Return RFC 3339 text in UTC with whole seconds, or None for None."""
    if wall_us is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=wall_us // 1_000_000)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
