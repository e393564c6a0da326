from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.core.units import (
    CREDITS_MAX,
    PICOCREDITS_PER_CREDIT,
    ceil_div,
    credits_of,
    credits_text,
    dollars,
    picocredits,
)

amounts = st.integers(min_value=0, max_value=CREDITS_MAX * PICOCREDITS_PER_CREDIT)
signed = st.integers(min_value=-(2**63), max_value=2**63 - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-0", 0),
        ("0.000000000001", 1),
        ("1e-12", 1),
        ("0.008", 8_000_000_000),
        ("0.1", 100_000_000_000),
        ("1", 10**12),
        ("1.50", 15 * 10**11),
        ("1E+2", 10**14),
        ("999999.999999999999", 10**18 - 1),
        ("1000000", 10**18),
        (Decimal("0.3"), 3 * 10**11),
        ("0.3" + "0" * 60, 3 * 10**11),
    ],
)
def test_decimal_credits_become_the_exact_integer(text, expected):
    amount = picocredits(text)
    assert amount == expected
    assert type(amount) is int


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a decimal"),
        ("abc", "not a decimal"),
        ("0x10", "not a decimal"),
        ("1,5", "not a decimal"),
        ("1.5 credits", "not a decimal"),
        ("nan", "not between"),
        ("sNaN", "not between"),
        ("inf", "not between"),
        ("-inf", "not between"),
        ("-1", "not between"),
        ("-0.000000000001", "not between"),
        ("-1e-400", "not between"),
        ("1000000.000000000001", "not between"),
        ("1e999999", "not between"),
        ("9" * 5000, "not between"),
        ("1e-13", "finer"),
        ("1.0000000000005", "finer"),
        ("1e-999999", "finer"),
        ("1." + "0" * 30 + "1", "finer"),
        ("999999." + "9" * 40, "finer"),
    ],
)
def test_what_integers_cannot_carry_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        picocredits(text)


@given(amounts)
@example(0)
@example(1)
@example(10**18)
def test_an_amount_survives_the_passage_through_text(amount):
    assert picocredits(credits_text(amount)) == amount


@given(st.decimals(min_value=-1, max_value=CREDITS_MAX + 1))
@example(Decimal("1.0000000000000000000000000000000000001"))
@example(Decimal("0.00000000000049999999999999999999999999"))
def test_a_decimal_is_carried_exactly_or_refused_and_never_rounded(amount):
    try:
        found = picocredits(amount)
    except ValueError:
        bounded = 0 <= amount <= CREDITS_MAX
        assert not bounded or (Fraction(amount) * PICOCREDITS_PER_CREDIT).denominator != 1
    else:
        assert Fraction(found, PICOCREDITS_PER_CREDIT) == Fraction(amount)


@given(signed)
def test_credits_of_any_stored_integer_are_exact_and_plain(amount):
    text = credits_text(amount)
    assert Fraction(text) == Fraction(amount, PICOCREDITS_PER_CREDIT)
    assert set(text) <= set("-.0123456789")
    assert "." not in text or not text.endswith(("0", "."))
    assert credits_of(amount) == Decimal(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (1, "0.000000000001"),
        (72_000_000, "0.000072"),
        (10**12, "1"),
        (10**14, "100"),
        (-5 * 10**11, "-0.5"),
    ],
)
def test_credits_read_as_people_write_them(amount, text):
    assert credits_text(amount) == text


@given(st.integers(min_value=0, max_value=2**70), st.integers(min_value=1, max_value=2**40))
def test_ceil_div_is_the_smallest_integer_that_covers(numerator, denominator):
    quotient = ceil_div(numerator, denominator)
    assert quotient * denominator >= numerator
    assert (quotient - 1) * denominator < numerator


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("5", "$5"), ("0", "$0"), ("0.000000000001", "$0.000000000001"), ("-0.5", "-$0.5")],
)
def test_dollars_are_exact_and_have_their_sign(amount, shown):
    assert dollars(Decimal(amount)) == shown
