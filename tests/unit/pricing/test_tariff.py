from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.core.limits import Limits
from appliance.core.units import PICOCREDITS_PER_CREDIT
from appliance.pricing.tariff import PRICE_MAX, TIERS, UNIT_SIZE, Tariff

INT64_MAX = 2**63 - 1
tasks = st.sampled_from(sorted(UNIT_SIZE))
units = st.integers(min_value=0, max_value=Limits().request_tokens_max)


def tariff(task="embeddings", realtime="0.008", batch="0.004"):
    return Tariff(task=task, realtime=Decimal(realtime), batch=Decimal(batch))


@pytest.mark.parametrize(
    ("task", "price", "count", "expected"),
    [
        ("embeddings", "0.008", 0, 0),
        ("embeddings", "0.008", 1, 8_000),
        ("embeddings", "0.008", 9, 72_000),
        ("embeddings", "0.008", 1_000_000, 8_000_000_000),
        ("embeddings", "0.000001", 3, 3),
        ("embeddings", "1000", 1_000_000, 10**15),
        ("rerank", "0.008", 1, 8_000_000),
        ("rerank", "0.000000001", 7, 7),
        ("rerank", "1000", 2_048, 2_048 * 10**12),
        ("rerank", "0", 2_048, 0),
    ],
)
def test_a_quote_is_units_times_the_price_of_one(task, price, count, expected):
    quote = tariff(task, realtime=price, batch="0").quote(count, tier="realtime")
    assert quote == expected
    assert type(quote) is int


def test_each_tier_has_its_own_price():
    both = tariff(realtime="0.008", batch="0.004")
    assert (both.each("realtime"), both.each("batch")) == (8_000, 4_000)
    assert both.quote(10, tier="batch") * 2 == both.quote(10, tier="realtime")
    assert both.unit == "1M tokens"
    assert tariff("rerank").unit == "1k documents"


@pytest.mark.parametrize("task", ["embeddings", "rerank"])
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("price", "reason"),
    [
        ("-0.001", "between"),
        ("-1e-30", "between"),
        ("NaN", "between"),
        ("sNaN", "between"),
        ("Infinity", "between"),
        ("1000.000001", "between"),
        ("1e50", "between"),
        ("1e-999999", "finer"),
        ("0.0000000005", "finer"),
        ("0.000001" + "0" * 30 + "1", "finer"),
        ("999." + "9" * 40, "finer"),
    ],
)
def test_a_price_that_integers_cannot_carry_is_refused_and_names_its_tier(
    task, tier, price, reason
):
    with pytest.raises(ValueError, match=f"{tier} .*{reason}"):
        tariff(task, **{tier: price})


@given(task=tasks, each=st.integers(min_value=0, max_value=10**9), count=units)
def test_every_whole_picocredit_price_is_charged_exactly(task, each, count):
    price = str(Decimal(each * UNIT_SIZE[task]).scaleb(-12))
    exact = tariff(task, realtime=price, batch=price)
    assert exact.each("realtime") == exact.each("batch") == each
    assert exact.quote(count, tier="realtime") == each * count


@given(task=tasks, price=st.decimals(min_value=0, max_value=PRICE_MAX), count=units)
@example(task="rerank", price=Decimal("0.0000000010000000000000000000000000001"), count=1)
def test_a_decimal_price_is_charged_exactly_or_refused_and_never_rounded(task, price, count):
    one = Fraction(price) * PICOCREDITS_PER_CREDIT / UNIT_SIZE[task]
    try:
        found = Tariff(task=task, realtime=price, batch=Decimal(0))
    except ValueError:
        assert one.denominator != 1
    else:
        assert found.quote(count, tier="realtime") == one * count


def test_the_dearest_call_fits_in_64_bits():
    limits = Limits()
    tokens = tariff("embeddings", str(PRICE_MAX)).quote(limits.request_tokens_max, tier="realtime")
    documents = tariff("rerank", str(PRICE_MAX)).quote(limits.inputs_max, tier="realtime")
    assert max(tokens, documents) * 1_000 < INT64_MAX
