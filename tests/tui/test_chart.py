"""A plotted history: what is drawn where, for whatever numbers there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.chart import AXIS, ceiling, chart, spread


def drawn(lines):
    return ["".join(piece for piece, _ in line) for line in lines]


VALUES = st.lists(st.floats(0, 1e12, allow_nan=False), max_size=200)


@given(VALUES, st.integers(AXIS + 12, 200), st.integers(2, 30))
def test_every_line_is_as_wide_as_asked_and_there_are_as_many(values, width, height):
    lines = drawn(chart(values, width, height, "15 min"))
    assert len(lines) == height
    assert {len(line) for line in lines} == {width}
    assert lines[-1].endswith("now")


@given(st.integers(0, 12), st.integers(0, 3))
def test_where_there_is_no_room_nothing_breaks(width, height):
    assert len(chart([1.0, 2.0], width, height, "1 min")) <= height


def test_dots_rise_with_the_value_from_the_left_to_the_right():
    lines = drawn(chart([0, 5, 10], AXIS + 12, 4, "1 min"))
    columns = [[line[AXIS + x] for line in lines[:3]] for x in range(12)]
    assert columns[0] == [" ", " ", " "]
    assert columns[-1] == ["\u28ff", "\u28ff", "\u28ff"]
    assert columns[5][0] == " "
    assert columns[5][2] == "\u28ff"
    assert lines[0].lstrip().startswith("10 \u2524")
    assert lines[3].lstrip().startswith("0 \u2514-1 min")


def test_nothing_happened_is_an_empty_chart():
    body = "".join(line[AXIS:] for line in drawn(chart([], 40, 6, "1 min"))[:-1])
    assert body.strip() == ""


@given(st.floats(1e-9, 1e15))
def test_the_axis_ends_at_a_round_number_not_far_above(highest):
    top = ceiling(highest)
    assert highest <= top <= highest * 2.5000001 or top <= 1.0
    assert f"{top:e}"[0] in "125" or f"{top:.0e}"[0] in "125"


@pytest.mark.parametrize("highest", [5e-324, 2e-323, 1e-300, 9e-10])
def test_the_smallest_numbers_there_are_have_an_axis_too(highest):
    assert ceiling(highest) == 1e-9
    assert len(chart([highest], 40, 6, "1 min")) == 6


@pytest.mark.parametrize(
    ("values", "count", "wanted"),
    [([1, 2], 4, [1, 1, 2, 2]), ([1, 9, 2, 3], 2, [9, 3]), ([], 3, [0, 0, 0]), ([7], 3, [7, 7, 7])],
)
def test_values_are_repeated_or_the_largest_is_kept(values, count, wanted):
    assert spread(values, count) == wanted


@given(VALUES, st.integers(1, 300))
def test_no_peak_is_lost(values, count):
    found = spread(values, count)
    assert len(found) == count
    assert max(found) == max(values, default=0)
