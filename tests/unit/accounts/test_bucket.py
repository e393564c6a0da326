from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from appliance.accounts.bucket import NS_PER_SECOND, Bucket

steps = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=90 * NS_PER_SECOND),
        st.integers(min_value=0, max_value=1_000),
    ),
    max_size=30,
)


@given(rate=st.integers(min_value=1, max_value=1_000), steps=steps)
def test_it_is_never_below_empty_nor_above_full_and_exact_in_between(rate, steps):
    now_ns, level = 0, Fraction(rate)
    bucket = Bucket.full(rate, now_ns)
    for wait_ns, units in steps:
        now_ns += wait_ns
        bucket.refill(now_ns)
        level = min(Fraction(rate), level + Fraction(wait_ns * rate, 60 * NS_PER_SECOND))
        assert bucket.take(units) is (level >= units)
        level -= units if level >= units else 0
        assert 0 <= level <= rate
        assert bucket.remaining() == level // 1
        assert bucket.reset_s() == -(-(rate - level) * 60 / rate // 1)


@given(rate=st.integers(min_value=1, max_value=10**9), data=st.data())
def test_the_wait_is_the_shortest_number_of_whole_seconds_that_suffices(rate, data):
    bucket = Bucket.full(rate, 0)
    assert bucket.take(data.draw(st.integers(min_value=1, max_value=rate)))
    units = data.draw(st.integers(min_value=0, max_value=rate))
    wait_s = bucket.wait_s(units)
    assert 0 <= wait_s <= 60
    if wait_s:
        bucket.refill((wait_s - 1) * NS_PER_SECOND)
        assert not bucket.take(units)
    bucket.refill(wait_s * NS_PER_SECOND)
    assert bucket.take(units)


def test_what_is_given_back_can_be_taken_again_and_is_never_more_than_the_rate():
    bucket = Bucket.full(10, 0)
    assert bucket.take(10)
    assert not bucket.take(1)
    bucket.give_back(3)
    assert bucket.remaining() == 3
    bucket.give_back(100)
    assert bucket.remaining() == 10
