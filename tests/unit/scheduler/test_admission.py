import pytest

from appliance.core.errors import QueueFull
from appliance.scheduler.admission import Admission
from appliance.scheduler.queue import Backlog
from tests.appliance import HandClock

SPEED = 1_000
NOTHING = Backlog(0, 0, 0, 1.0)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def admission(clock):
    return Admission(clock)


def refused(admission, backlog, tokens, *, computing=0, patience_s=60):
    """Return when a call is told to come back; None: it is admitted."""
    try:
        admission.require(backlog, computing, tokens, rate=SPEED, patience_s=patience_s)
    except QueueFull as error:
        return error.retry_after_s
    return None


def test_on_an_idle_engine_no_call_is_too_large(admission):
    for tokens in (1, 1_000, 100_000, 10_000_000):
        assert refused(admission, NOTHING, tokens, patience_s=1) is None


def test_what_was_admitted_and_this_call_must_end_in_time(admission):
    def others(tokens):
        return Backlog(0, min(tokens, 20_000), tokens, 1.0)

    assert refused(admission, others(20_000), 20_000) is None
    assert refused(admission, others(23_000), 20_000) is not None
    assert refused(admission, others(23_000), 20_000, patience_s=120) is None


def test_a_light_call_is_admitted_whatever_others_have_waiting(admission):
    # Three keys with a thousand seconds of work each take turns with it.
    assert refused(admission, Backlog(0, 3 * 16, 3_000_000, 1.0), 16) is None
    assert refused(admission, Backlog(0, 3 * 16_000, 3_000_000, 1.0), 16_000) is not None


def test_one_key_has_half_of_what_is_admitted(admission):
    assert refused(admission, Backlog(10_000, 10_000, 10_000, 1.0), 10_000) is None
    assert refused(admission, Backlog(15_000, 15_000, 15_000, 1.0), 10_000) is not None
    # Another key is admitted meanwhile.
    assert refused(admission, Backlog(0, 10_000, 21_000, 1.0), 10_000) is None


def test_a_call_that_is_longer_than_its_callers_patience_may_take_twice_its_time(admission):
    assert refused(admission, Backlog(0, 100_000, 100_000, 1.0), 100_000) is None
    assert refused(admission, Backlog(0, 120_000, 120_000, 1.0), 100_000) is not None


def test_those_that_are_sent_away_are_told_times_one_after_the_other(admission, clock):
    full = Backlog(0, 40_000, 44_000, 1.0)
    told = [refused(admission, full, 5_000) for _ in range(4)]
    assert told == [7, 12, 17, 22]  # 44 + 5 - 0.7 * 60, and five seconds of work each
    clock.advance(20)
    assert refused(admission, full, 5_000) == 7
    assert [refused(admission, full, 30_000) for _ in range(3)][-1] == 60


def test_whoever_is_sent_away_comes_back_after_a_second_at_least(admission):
    assert refused(admission, Backlog(0, 22_001, 22_001, 1.0), 20_000) == 1
