import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.clock import (
    MICROSECONDS_PER_DAY,
    STEP_BACK_MAX_US,
    SteadyClock,
    SystemClock,
    iso,
    seconds_to_midnight,
    stamp,
    stamped_us,
    utc_day,
)

NOON = 20_000 * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2
moments = st.integers(min_value=0, max_value=300 * 365 * MICROSECONDS_PER_DAY)


@pytest.mark.parametrize(
    ("wall_us", "day", "left_s"),
    [
        (0, 0, 86_400),
        (1, 0, 86_400),
        (1_000_000, 0, 86_399),
        (MICROSECONDS_PER_DAY - 1_000_000, 0, 1),
        (MICROSECONDS_PER_DAY - 1, 0, 1),
        (MICROSECONDS_PER_DAY, 1, 86_400),
        (NOON, 20_000, 43_200),
        (NOON + 1, 20_000, 43_200),
    ],
)
def test_the_day_turns_at_utc_midnight(wall_us, day, left_s):
    assert utc_day(wall_us) == day
    assert seconds_to_midnight(wall_us) == left_s


@given(moments)
def test_waiting_until_midnight_reaches_the_next_day_and_not_a_second_later(now_us):
    wait_s = seconds_to_midnight(now_us)
    assert 1 <= wait_s <= 86_400
    assert utc_day(now_us + wait_s * 1_000_000) == utc_day(now_us) + 1
    assert utc_day(now_us + (wait_s - 1) * 1_000_000) == utc_day(now_us)


@pytest.mark.parametrize(
    ("wall_us", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00Z"),
        (999_999, "1970-01-01T00:00:00Z"),
        (951_827_696_000_000, "2000-02-29T12:34:56Z"),
        (4_102_444_799_999_999, "2099-12-31T23:59:59Z"),
    ],
)
def test_a_moment_reads_as_rfc_3339_in_utc(wall_us, text):
    assert iso(wall_us) == text


def test_a_moment_stands_in_a_files_name_and_is_read_from_it():
    for wall_us in (0, 951_827_696_000_000, 1_790_000_000_000_000):
        assert re.fullmatch(r"\d{8}T\d{6}Z", stamp(wall_us))
        assert stamped_us(stamp(wall_us)) == wall_us
    assert stamp(951_827_696_999_999) == "20000229T123456Z"
    with pytest.raises(ValueError):
        stamped_us("20000230T123456Z")


def test_the_system_clock_tells_the_machines_time_and_never_runs_backwards():
    clock = SystemClock()
    before_us = time.time_ns() // 1000
    wall_us = clock.wall_us()
    assert before_us <= wall_us <= time.time_ns() // 1000
    readings = [clock.monotonic_ns() for _ in range(10_000)]
    assert readings == sorted(readings)


class Wall:
    def __init__(self, now_us):
        self.now_us = now_us

    def wall_us(self):
        return self.now_us

    def monotonic_ns(self):
        return 7


def test_a_steady_clock_follows_a_clock_that_runs_on():
    wall = Wall(NOON)
    steady = SteadyClock(wall, seen_us=0)
    for step in (0, 1, 86_400_000_000, 10**15):
        wall.now_us += step
        assert steady.wall_us() == wall.now_us
    assert steady.monotonic_ns() == 7


@pytest.mark.parametrize("back_us", [1, 3_600_000_000, STEP_BACK_MAX_US])
def test_a_steady_clock_waits_for_a_clock_that_was_set_back(back_us):
    wall = Wall(NOON)
    steady = SteadyClock(wall, seen_us=0)
    assert steady.wall_us() == NOON
    wall.now_us -= back_us
    assert steady.wall_us() == NOON
    assert SteadyClock(wall, seen_us=NOON).wall_us() == NOON
    wall.now_us = NOON + 1
    assert steady.wall_us() == NOON + 1


def test_a_steady_clock_follows_one_that_was_far_ahead_by_mistake():
    wall = Wall(NOON)
    steady = SteadyClock(wall, seen_us=NOON + STEP_BACK_MAX_US + 1)
    assert steady.wall_us() == NOON
