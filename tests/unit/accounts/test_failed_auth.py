import pytest

from appliance.accounts.failed_auth import FailedAuthLimiter, network_of
from appliance.core.errors import TooManyInvalidKeys
from tests.appliance import HandClock

NS = 1_000_000_000


def failed_auth(clock=None, *, most=3, addresses_max=100):
    return FailedAuthLimiter(
        clock or HandClock(), failures_per_minute=most, addresses_max=addresses_max
    )


def is_refused(made, address):
    try:
        made.count(address)
    except TooManyInvalidKeys:
        return True
    return False


def test_an_address_may_fail_a_minutes_worth_and_is_then_told_when_it_may_again():
    clock = HandClock()
    made = failed_auth(clock)
    for _ in range(3):
        made.count("192.0.2.1")
    with pytest.raises(TooManyInvalidKeys) as refusal:
        made.count("192.0.2.1")
    assert refusal.value.retry_after_s == 20
    assert refusal.value.code == "rate_limited"
    clock.mono_ns += 20 * NS - 1
    assert is_refused(made, "192.0.2.1")
    clock.mono_ns += 1
    assert not is_refused(made, "192.0.2.1")
    assert is_refused(made, "192.0.2.1")


def test_addresses_do_not_use_up_each_others_failures():
    made = failed_auth(most=1)
    made.count("192.0.2.1")
    assert not is_refused(made, "192.0.2.2")
    assert is_refused(made, "192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "unix", True),
        ("", "192.0.2.1", False),
    ],
)
def test_an_ipv4_address_and_an_ipv6_network_of_64_bits_are_counted_alone(one, other, same):
    assert (network_of(one) == network_of(other)) is same
    made = failed_auth(most=1)
    made.count(one)
    assert is_refused(made, other) is same


def test_no_more_addresses_are_held_than_allowed_and_the_one_quiet_longest_goes_first():
    made = failed_auth(most=1, addresses_max=3)
    for number in (1, 2, 3):
        made.count(f"192.0.2.{number}")
    assert is_refused(made, "192.0.2.1")  # it was heard of again, so 2 is the quietest
    made.count("192.0.2.4")
    assert list(made._buckets) == ["192.0.2.3", "192.0.2.1", "192.0.2.4"]
    for number in range(10_000):
        made.count(f"10.0.{number // 250}.{number % 250}")
        assert len(made._buckets) == 3
    assert repr(made) == "<FailedAuthLimiter [3 addresses]>"


def test_a_refused_attempt_takes_nothing_so_that_the_wait_stays_true():
    clock = HandClock()
    made = failed_auth(clock, most=60)
    for _ in range(60):
        made.count("192.0.2.1")
    for _ in range(1_000):
        assert is_refused(made, "192.0.2.1")
    clock.mono_ns += NS
    assert not is_refused(made, "192.0.2.1")
