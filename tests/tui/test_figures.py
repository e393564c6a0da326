"""Numbers as people read them: the digits that matter, in the room that there is."""

import pytest

from tui import figures
from tui.inert import plain
from tui.widgets.lines import right


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (0.001, "0.001"),
        (0.3, "0.3"),
        (1, "1"),
        (1.5, "1.5"),
        (99.94, "99.9"),
        (100.4, "100"),
        (999, "999"),
        (999.7, "1.0k"),
        (1_234, "1.2k"),
        (123_456, "123k"),
        (999_960, "1.0M"),
        (2_500_000, "2.5M"),
    ],
)
def test_a_number_has_the_digits_that_matter(value, wanted):
    assert figures.number(value) == wanted
    assert len(wanted) <= 5


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.4, "0.4 ms"), (12.34, "12.3 ms"), (123.4, "123 ms"), (1_250, "1.2 s")]
)
def test_a_time_is_never_wider_than_seven(value, wanted):
    assert figures.ms(value) == wanted
    assert len(wanted) <= 7


def test_what_does_not_fit_says_so():
    assert right("12.3k", 4) == "12.\u2026"
    assert right("12", 4) == "  12"
    assert right("12", 0) == ""
    assert plain("x" * 1000, width=400) == "x" * 399 + "\u2026"
    assert plain("x" * 1000) == "x" * 199 + "\u2026"
    assert plain("\x1b[31m", width=10) == r"\x1b[31m"
