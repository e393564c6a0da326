import asyncio
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accounts.key import Key, KeyLimits
from appliance.accounts.limiter import Limiter
from appliance.core.errors import (
    DailyBudgetExceeded,
    InferenceFailed,
    InsufficientCredit,
    InvalidRequest,
    LedgerUnavailable,
    ModelWarming,
    QueueFull,
    RateLimited,
)
from tests.appliance import HandClock

NS = 1_000_000_000
PLAIN = Key(
    id="key_a",
    name="n",
    digest=b"d" * 32,
    hint="gr-AbCd…wxyz",
    unlimited=True,
    limits=KeyLimits(),
    created_us=0,
    expires_us=None,
    revoked_us=None,
)


def key(key_id="key_a", **limits):
    return replace(PLAIN, id=key_id, limits=KeyLimits(**limits))


def call(limiter, who):
    with limiter.call(who):
        pass


def test_a_key_without_limits_is_never_refused_and_told_of_none():
    limiter = Limiter(HandClock())
    for _ in range(10_000):
        with limiter.call(PLAIN):
            limiter._take_tokens(PLAIN, 10**9)
    assert limiter.headers(PLAIN) == {}


def test_a_minutes_worth_of_requests_passes_at_once_and_then_one_at_a_time():
    clock = HandClock()
    limiter, who = Limiter(clock), key(rpm=60)
    for _ in range(60):
        call(limiter, who)
    with pytest.raises(RateLimited, match="60 requests a minute") as refusal:
        call(limiter, who)
    assert refusal.value.retry_after_s == 1
    clock.mono_ns += NS - 1
    with pytest.raises(RateLimited):
        call(limiter, who)
    clock.mono_ns += 1
    call(limiter, who)
    with pytest.raises(RateLimited):
        call(limiter, who)


@pytest.mark.parametrize(
    ("rpm", "used", "after_s"),
    [(1, 1, 60), (2, 2, 30), (7, 7, 9), (60, 60, 1), (100_000, 100_000, 1)],
)
def test_a_refusal_says_the_whole_seconds_after_which_the_call_passes(rpm, used, after_s):
    clock = HandClock()
    limiter, who = Limiter(clock), key(rpm=rpm)
    for _ in range(used):
        call(limiter, who)
    with pytest.raises(RateLimited) as refusal:
        call(limiter, who)
    assert refusal.value.retry_after_s == after_s
    clock.mono_ns += after_s * NS
    call(limiter, who)


def test_a_rest_never_saves_up_more_than_one_minutes_worth():
    clock = HandClock()
    limiter, who = Limiter(clock), key(rpm=3)
    call(limiter, who)
    clock.mono_ns += 3_600 * NS
    for _ in range(3):
        call(limiter, who)
    with pytest.raises(RateLimited):
        call(limiter, who)


steps = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=90 * NS), st.integers(min_value=0, max_value=3_000)
    ),
    max_size=30,
)


@given(rate=st.integers(min_value=1, max_value=1_000), steps=steps)
def test_the_token_bucket_is_exact_over_any_history(rate, steps):
    clock = HandClock()
    limiter, who = Limiter(clock), key(tpm=rate)
    level = Fraction(rate)
    for wait_ns, units in steps:
        clock.mono_ns += wait_ns
        level = min(Fraction(rate), level + Fraction(wait_ns * rate, 60 * NS))
        if units > rate:
            with pytest.raises(InvalidRequest, match=f"limited to {rate} tokens a minute"):
                limiter._take_tokens(who, units)
        elif level >= units:
            limiter._take_tokens(who, units)
            level -= units
        else:
            with pytest.raises(RateLimited) as refusal:
                limiter._take_tokens(who, units)
            assert refusal.value.retry_after_s == -(-(units - level) * 60 / rate // 1)
        headers = limiter.headers(who)
        assert headers["x-ratelimit-limit-tokens"] == str(rate)
        assert headers["x-ratelimit-remaining-tokens"] == str(level // 1)
        full_s = (rate - level) * 60 / rate
        assert headers["x-ratelimit-reset-tokens"] == f"{-(-full_s // 1)}s"


@given(
    rpm=st.integers(min_value=1, max_value=200),
    tpm=st.integers(min_value=1, max_value=2_000),
    calls=st.lists(
        st.tuples(
            st.integers(min_value=0, max_value=20 * NS), st.integers(min_value=0, max_value=2_000)
        ),
        max_size=40,
    ),
)
def test_who_waits_exactly_as_long_as_told_is_not_refused_for_the_same_reason_again(
    rpm, tpm, calls
):
    """A call whose tokens are known by then passes; one that was refused earlier gets as far."""
    clock = HandClock()
    limiter, who = Limiter(clock), key(rpm=rpm, tpm=tpm)

    def try_call(tokens):
        with limiter.call(who):
            limiter._take_tokens(who, min(tokens, tpm))

    for wait_ns, tokens in calls:
        clock.mono_ns += wait_ns
        refusals = []
        while len(refusals) < 3:
            try:
                try_call(tokens)
                break
            except RateLimited as refusal:
                refusals.append("tokens" if "tokens" in refusal.message else "requests")
                told_s = refusal.retry_after_s
            assert told_s in range(1, 61)
            clock.mono_ns += told_s * NS
        assert refusals in ([], ["requests"], ["tokens"], ["requests", "tokens"])


def test_a_call_that_no_minute_has_tokens_for_is_told_to_be_split_and_takes_none():
    limiter, who = Limiter(HandClock()), key(tpm=100)
    with pytest.raises(InvalidRequest, match=r"101 tokens .* limited to 100 tokens .* split it"):
        limiter._take_tokens(who, 101)
    limiter._take_tokens(who, 100)


def test_a_call_refused_for_its_tokens_is_told_when_it_has_a_request_too():
    clock = HandClock()
    limiter, who = Limiter(clock), key(rpm=2, tpm=60)
    with limiter.call(who):
        limiter._take_tokens(who, 60)
    with limiter.call(who), pytest.raises(RateLimited, match="60 tokens") as refusal:
        limiter._take_tokens(who, 1)
    assert refusal.value.retry_after_s == 30
    clock.mono_ns += 30 * NS
    with limiter.call(who):
        limiter._take_tokens(who, 1)


def test_a_refused_call_takes_nothing():
    clock = HandClock()
    limiter, who = Limiter(clock), key(rpm=2, tpm=10)
    limiter._take_tokens(who, 10)
    for _ in range(5):
        with pytest.raises(RateLimited):
            limiter._take_tokens(who, 1)
    clock.mono_ns += 6 * NS
    limiter._take_tokens(who, 1)
    call(limiter, who)
    call(limiter, who)
    for _ in range(5):
        with pytest.raises(RateLimited):
            call(limiter, who)
    clock.mono_ns += 30 * NS
    call(limiter, who)


def test_only_as_many_calls_as_allowed_run_at_one_time_and_an_end_makes_room():
    limiter, who = Limiter(HandClock()), key(concurrency=2)
    with limiter.call(who):
        with limiter.call(who):
            with pytest.raises(RateLimited, match="2 calls at one time") as refusal:
                call(limiter, who)
            assert refusal.value.retry_after_s == 1
        call(limiter, who)
    assert limiter._running == {}


def test_a_call_that_fails_frees_its_place():
    limiter, who = Limiter(HandClock()), key(concurrency=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), limiter.call(who):
            _ = 1 / 0
    call(limiter, who)
    assert limiter._running == {}


def test_a_call_refused_for_its_rate_takes_no_place():
    limiter, who = Limiter(HandClock()), key(rpm=1, concurrency=1)
    call(limiter, who)
    for _ in range(3):
        with pytest.raises(RateLimited, match="requests a minute"):
            call(limiter, who)
    assert limiter._running == {}


def test_a_call_refused_for_concurrency_uses_up_no_request():
    limiter, who = Limiter(HandClock()), key(rpm=2, concurrency=1)
    with limiter.call(who):
        for _ in range(5):
            with pytest.raises(RateLimited, match="at one time"):
                call(limiter, who)
    call(limiter, who)


def test_every_refusal_of_ours_gives_the_tokens_back_and_a_fault_does_not_count_twice():
    limiter, who = Limiter(HandClock()), key(tpm=10)
    for refusal in (
        InsufficientCredit(required="2", available="1"),
        QueueFull(retry_after_s=1),
        InferenceFailed("it took too long"),
    ):
        with pytest.raises(type(refusal)), limiter.tokens(who, 10):
            raise refusal
    with limiter.tokens(who, 10):
        pass
    with pytest.raises(RateLimited), limiter.tokens(who, 1):
        pass


def test_keys_do_not_use_up_each_others_rates():
    limiter = Limiter(HandClock())
    first, second = (
        key("key_a", rpm=1, tpm=5, concurrency=1),
        key("key_b", rpm=1, tpm=5, concurrency=1),
    )
    with limiter.call(first), limiter.call(second):
        limiter._take_tokens(first, 5)
        limiter._take_tokens(second, 5)
    for who in (first, second):
        with pytest.raises(RateLimited):
            call(limiter, who)


def test_headers_tell_what_is_left_and_when_it_is_full_again():
    clock = HandClock()
    limiter, who = Limiter(clock), key(rpm=60)
    for _ in range(15):
        call(limiter, who)
    clock.mono_ns += NS // 2
    assert limiter.headers(who) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "45",
        "x-ratelimit-reset-requests": "15s",
    }


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (ModelWarming(model="m", retry_after_s=1), (1, 10)),
        (QueueFull(retry_after_s=1), (1, 10)),
        (LedgerUnavailable("disk"), (1, 10)),
        (InsufficientCredit(required="2", available="1"), (0, 10)),
        (DailyBudgetExceeded(retry_after_s=1), (0, 10)),
        (asyncio.CancelledError(), (0, 0)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_a_refused_call_did_not_use_is_given_back(error, left):
    clock = HandClock()
    limiter, who = Limiter(clock), key(rpm=1, tpm=10)
    with pytest.raises(type(error)), limiter.call(who), limiter.tokens(who, 10):
        raise error
    headers = limiter.headers(who)
    remaining = [int(headers[f"x-ratelimit-remaining-{noun}"]) for noun in ("requests", "tokens")]
    assert tuple(remaining) == left


def test_a_key_with_another_rate_keeps_what_it_took_of_this_minute():
    clock = HandClock()
    limiter = Limiter(clock)
    for _ in range(40):
        call(limiter, key(rpm=60))
    assert limiter.headers(key(rpm=100))["x-ratelimit-remaining-requests"] == "60"
    for _ in range(60):
        call(limiter, key(rpm=100))
    with pytest.raises(RateLimited, match="30 requests a minute"):
        call(limiter, key(rpm=30))
    clock.advance(2)
    call(limiter, key(rpm=30))
    call(limiter, key(rpm=None))
