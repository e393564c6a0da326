"""Numbers as pages show them."""

from decimal import Decimal

import pytest

from appliance.pages.figures import bytes_text, count_text, grouped, money_text


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1k"),
        (22_565_376, "22.6M"),
        (999_949, "999.9k"),
        (999_950, "1M"),
        (7_567_295_488, "7.6B"),
        (10**18, "1000000T"),
    ],
)
def test_counts(count, shown):
    assert count_text(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (512, "512 B"), (45_900_000, "45.9 MB"), (4_670_000_000, "4.7 GB")],
)
def test_bytes(count, shown):
    assert bytes_text(count) == shown


def test_thousands():
    assert grouped(8192) == "8,192"
    assert grouped(512) == "512"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0.008", "$0.008"),
        ("1E-9", "$0.000000001"),
        ("2.50", "$2.5"),
        ("10", "$10"),
        ("1E+2", "$100"),
        ("0", "$0"),
        ("0.000", "$0"),
    ],
)
def test_money_is_exact_and_never_an_exponent(amount, shown):
    assert money_text(Decimal(amount)) == shown
