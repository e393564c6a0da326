from appliance.observe.timeline import Timeline
from tests.appliance import HandClock

NOW = 1_790_000_000


def test_it_advances_by_the_monotonic_clock_while_the_wall_clock_is_set_back():
    clock = HandClock()
    it = Timeline(clock)
    seen = [it.now_s()]
    for step_s in (-3600, -86_400 * 400, 1, -1):
        clock.wall += step_s * 1_000_000
        clock.advance(10)
        seen.append(it.now_s())
    assert seen == [NOW, NOW + 10, NOW + 20, NOW + 30, NOW + 40]


def test_it_follows_a_wall_clock_that_is_ahead_as_after_a_sleep():
    clock = HandClock()
    it = Timeline(clock)
    clock.wall += 1_500_000
    assert it.now_s() == NOW
    clock.wall += 7200 * 1_000_000
    assert it.now_s() == NOW + 7201
    clock.advance(1)
    assert it.now_s() == NOW + 7202


def test_it_begins_where_the_last_history_ends_if_the_clock_is_a_little_behind():
    assert Timeline(HandClock(), NOW + 3600).now_s() == NOW + 3600
    assert Timeline(HandClock(), NOW - 3600).now_s() == NOW
    assert Timeline(HandClock(), NOW + 40 * 86_400).now_s() == NOW
