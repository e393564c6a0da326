from hypothesis import given
from hypothesis import strategies as st

from appliance.core.histogram import Histogram

numbers = st.integers(-100, 100)


@given(st.lists(numbers, min_size=1, max_size=8, unique=True), st.lists(numbers))
def test_every_value_is_in_the_bucket_of_the_first_bound_that_it_does_not_exceed(bounds, values):
    bounds = sorted(bounds)
    found = Histogram(bounds)
    for value in values:
        found.add(value)
    read = found.read()
    assert read.bounds == tuple(bounds)
    below = [sum(value <= bound for value in values) for bound in bounds]
    assert [sum(read.counts[: n + 1]) for n in range(len(bounds))] == below
    assert sum(read.counts) == len(values)
    assert read.total == sum(values)


def test_what_was_read_does_not_change():
    found = Histogram([1])
    before = found.read()
    found.add(0)
    assert before.counts == (0, 0)
    assert found.read().counts == (1, 0)
