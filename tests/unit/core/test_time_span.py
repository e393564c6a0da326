"""A span of time is a whole number and a unit, or it is none."""

import pytest

from appliance.core.time_span import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5_400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_a_span_is_seconds(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0d", "-1h", "1.5h", "1y", "h", "1 h", "12345678m"])
def test_what_is_no_span_has_none(text):
    assert seconds_of(text) == 0
