from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from appliance.sequences import truncation

LENGTHS = range(14)
LIMITS = range(30)


@pytest.fixture(scope="module")
def reference() -> Iterator[Tokenizer]:
    """A tokenizer in which every given word is one token."""
    return Tokenizer(models.WordLevel({"w": 0}, unk_token="w"))


@pytest.mark.parametrize("limit", LIMITS)
def test_single_cuts_as_the_reference_does(reference, limit):
    reference.enable_truncation(limit)
    for tokens in LENGTHS:
        cut = reference.encode(["w"] * tokens, is_pretokenized=True)
        assert truncation.single(tokens, limit) == len(cut.ids)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_pair_is_cut_as_the_reference_does(reference, limit):
    reference.enable_truncation(limit, strategy="longest_first")
    for first in LENGTHS:
        for second in LENGTHS:
            cut = reference.encode(["w"] * first, ["w"] * second, is_pretokenized=True)
            lengths = cut.type_ids.count(0), cut.type_ids.count(1)
            assert truncation.pair_lengths(first, second, limit) == lengths, (first, second)


@pytest.mark.parametrize(
    ("first", "second", "limit", "expected"),
    [
        (10, 2000, 509, (10, 499)),
        (2000, 10, 509, (499, 10)),
        (400, 400, 509, (254, 255)),
        (401, 400, 509, (255, 254)),
        (0, 600, 509, (0, 509)),
        (600, 600, 0, (0, 0)),
        (254, 255, 509, (254, 255)),
    ],
)
def test_a_pair_of_a_512_token_model_is_cut_as_worked_out_by_hand(first, second, limit, expected):
    assert truncation.pair_lengths(first, second, limit) == expected


counts = st.integers(min_value=0, max_value=10_000_000)


@given(first=counts, second=counts, limit=counts)
def test_a_pair_fills_the_limit_and_never_grows(first, second, limit):
    kept = truncation.pair_lengths(first, second, limit)
    assert 0 <= kept[0] <= first
    assert 0 <= kept[1] <= second
    assert sum(kept) == min(first + second, limit)


@given(st.integers(0, 500), st.integers(1, 60))
def test_windows_are_the_fewest_parts_that_fit_and_differ_by_one_at_most(tokens, limit):
    found = truncation.window_lengths(tokens, limit)
    assert sum(found) == tokens
    assert len(found) == max(1, -(-tokens // limit))
    assert max(found) <= limit
    assert max(found) - min(found) <= 1
    assert found == sorted(found, reverse=True)
