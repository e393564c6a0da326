"""Numbers as people read them: the digits that matter, in the room that there is."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.tui.fake import FakeServer
from tui import figures
from tui.inert import plain
from tui.screens import panels
from tui.widgets.lines import column, right


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
        (99.96, "100"),
        (99_950, "100k"),
        (99_940, "99.9k"),
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


# -- widths over all magnitudes ------------------------------------------------------------------

MAGNITUDES = st.one_of(
    st.floats(min_value=0, max_value=1e18),
    st.builds(
        lambda digits, power: digits * 10.0**power,
        st.floats(min_value=0.99, max_value=10.01),
        st.integers(min_value=-14, max_value=17),
    ),
    st.integers(min_value=0, max_value=10**18).map(float),
)
PICOCREDITS = st.integers(min_value=0, max_value=10**20)
SCALES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "<": 1, "B": 1}


def read(text):
    """The value that a figure says."""
    digits = text.rstrip("kMGTPB ").replace(",", "")
    return float(digits) * SCALES[text.removesuffix("B").strip(" 0123456789.,") or ""]


@given(MAGNITUDES)
def test_a_number_keeps_its_width_and_its_value(value):
    said = figures.number(value)
    assert len(said) <= figures.NUMBER_WIDTH
    if said != "<.001":
        assert abs(read(said) - value) <= max(0.051 * value, 0.0006 if value < 0.01 else 0)
        assert "e" not in said


@given(MAGNITUDES)
def test_a_size_and_a_time_keep_their_widths(value):
    assert len(figures.size(value)) <= figures.SIZE_WIDTH
    assert len(figures.ms(value)) <= figures.MS_WIDTH
    assert "1000 " not in figures.size(value)
    assert "1000 " not in figures.ms(value)


@given(PICOCREDITS)
def test_money_keeps_its_width_and_its_value(amount):
    value = Decimal(amount).scaleb(-12)
    said = figures.money(value)
    assert len(said) <= figures.MONEY_WIDTH
    assert "E" not in said.upper()
    if said.startswith("<"):
        assert value < Decimal("0.00000001")
    else:
        assert abs(read(said.removeprefix("$")) - float(value)) <= max(0.051 * float(value), 5e-10)


@given(MAGNITUDES, st.integers(min_value=0, max_value=12))
def test_a_column_is_as_wide_as_it_is_and_begins_with_a_gap(value, width):
    shown = column(figures.number(value), width)
    assert len(shown) == width
    assert shown[:1] in ("", " ")


@given(
    st.integers(min_value=0, max_value=10**12),
    PICOCREDITS,
    st.floats(min_value=0, max_value=1e9),
    st.sampled_from([78, 118, 158]),
)
def test_the_cells_of_the_last_calls_never_touch(units, cost, took, width):
    [call, _] = FakeServer().stats.recent
    call = msgspec.structs.replace(
        call,
        tokens=units,
        documents=units,
        cost=f"{Decimal(cost).scaleb(-12):f}",
        ms=took,
        key="k" * 60,
        model="m" * 60,
        code="c" * 60,
    )
    [_, line] = panels.calls([call], width, 2, "")
    words = "".join(text for text, _ in line)
    assert len(words) <= width
    figures_ = [
        figures.number(units),
        figures.number(units) if units else "-",
        *figures.money(call.cost).split(),
        *figures.ms(took).split(),
    ]
    assert words.split()[-len(figures_) :] == figures_


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("0", "$0"),
        ("5", "$5.00"),
        ("0.5", "$0.50"),
        ("0.0123", "$0.0123"),
        ("0.000001848", "$0.00000185"),
        ("0.000000024", "$0.000000024"),
        ("0.0000000001", "<$0.00000001"),
        ("1234.5", "$1,234.50"),
        ("1234567", "$1.2M"),
        ("-0.5", "-$0.50"),
        (None, "unlimited"),
        ("no number", "?"),
    ],
)
def test_money_has_one_notation_with_its_unit(value, wanted):
    assert figures.money(value) == wanted


def test_a_table_with_less_room_says_that_an_amount_is_below_its_last_decimal():
    assert figures.money("0.000001848", decimals=4) == "<$0.0001"
    assert figures.money("0.00341", decimals=4) == "$0.0034"


def test_a_column_of_wide_characters_is_as_wide_as_one_of_others():
    assert cell_len(right("\u65e5\u672c", 8)) == 8
    assert cell_len(right("\u65e5\u672c\u8a9e\u306e\u9375", 6)) == 6
