import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.sequences.sequence import Frame, frame_pair, frame_parts, frame_single, frame_windows

FRAME = Frame(cls=901, sep=902)
tokens = st.lists(st.integers(0, 900), max_size=30).map(lambda ids: np.array(ids, np.int32))


def ids(*values):
    return np.array(values, np.int32)


@given(tokens, st.integers(2, 40))
def test_a_text_stands_between_its_special_tokens_and_only_its_end_is_cut(text, tokens_max):
    found = frame_single(text, FRAME, tokens_max=tokens_max)
    kept = len(found) - 2
    assert found.tokens.tolist() == [901, *text[:kept].tolist(), 902]
    assert len(found) == min(len(text) + 2, tokens_max)
    assert found.truncated == (kept < len(text))
    assert found.segment_b == len(found)
    assert found.tokens.dtype == np.int32


@given(tokens, tokens, st.integers(3, 70))
def test_a_pair_stands_between_its_special_tokens_and_only_its_ends_are_cut(
    first, second, tokens_max
):
    found = frame_pair(first, second, FRAME, tokens_max=tokens_max)
    whole = found.tokens.tolist()
    kept_first = whole.index(902) - 1
    kept_second = len(whole) - kept_first - 3
    assert whole == [901, *first[:kept_first], 902, *second[:kept_second], 902]
    assert len(found) == min(len(first) + len(second) + 3, tokens_max)
    assert found.truncated == (kept_first < len(first) or kept_second < len(second))
    assert found.segment_b == kept_first + 2
    assert found.tokens.dtype == np.int32


def test_the_second_segment_begins_after_the_first_separator():
    found = frame_pair(ids(1, 2), ids(3), FRAME, tokens_max=10)
    assert found.tokens.tolist() == [901, 1, 2, 902, 3, 902]
    assert found.tokens[found.segment_b :].tolist() == [3, 902]
    assert not found.truncated


@given(tokens, st.integers(2, 40), st.none() | st.just(901), st.none() | st.just(902))
def test_a_decoders_text_stands_between_what_its_file_names(text, tokens_max, opening, closing):
    frame = Frame(opening, closing)
    found = frame_single(text, frame, tokens_max=tokens_max)
    before = [] if opening is None else [opening]
    after = [] if closing is None else [closing]
    kept = min(len(text), tokens_max - len(before) - len(after))
    assert found.tokens.tolist() == [*before, *text[:kept].tolist(), *after]
    assert frame.specials == len(before) + len(after)
    assert found.truncated == (kept < len(text))
    assert found.segment_b == len(found)


def test_an_empty_text_is_its_frame():
    assert frame_single(ids(), FRAME, tokens_max=512).tokens.tolist() == [901, 902]
    assert frame_pair(ids(), ids(), FRAME, tokens_max=512).tokens.tolist() == [901, 902, 902]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(10, 2000, (10, 499)), (2000, 10, (499, 10)), (400, 400, (254, 255)), (600, 0, (509, 0))],
)
def test_the_longer_text_is_cut_first(first, second, kept):
    found = frame_pair(
        np.ones(first, np.int32), np.full(second, 2, np.int32), FRAME, tokens_max=512
    )
    values = found.tokens.tolist()
    assert (values.count(1), values.count(2)) == kept
    assert len(found) == 512
    assert found.truncated


def test_framing_copies():
    text = ids(1, 2, 3)
    found = frame_single(text, FRAME, tokens_max=10)
    text[:] = 7
    assert found.tokens.tolist() == [901, 1, 2, 3, 902]


@given(tokens, st.integers(2, 40), st.none() | st.just(901), st.none() | st.just(902))
def test_a_text_cut_at_its_start_keeps_its_end_and_its_special_tokens(
    text, tokens_max, opening, closing
):
    frame = Frame(opening, closing)
    found = frame_single(text, frame, tokens_max=tokens_max, side="start")
    before = [] if opening is None else [opening]
    after = [] if closing is None else [closing]
    kept = min(len(text), tokens_max - len(before) - len(after))
    assert found.tokens.tolist() == [*before, *text[len(text) - kept :].tolist(), *after]
    assert found.truncated == (kept < len(text))


@given(tokens, st.integers(3, 40), st.none() | st.just(901), st.none() | st.just(902))
def test_windows_hold_each_token_once_in_order_and_are_as_few_and_equal_as_can_be(
    text, tokens_max, opening, closing
):
    frame = Frame(opening, closing)
    found = frame_windows(text, frame, tokens_max=tokens_max)
    room = tokens_max - frame.specials
    inner = [
        each.tokens[opening is not None : len(each) - (closing is not None)].tolist()
        for each in found
    ]
    assert [token for each in inner for token in each] == text.tolist()
    assert len(found) == max(1, -(-len(text) // room))
    assert max(map(len, inner)) - min(map(len, inner)) <= 1
    for each in found:
        assert not each.truncated
        assert len(each) <= tokens_max
        assert (opening is None) or each.tokens[0] == opening
        assert (closing is None) or each.tokens[-1] == closing


def test_a_text_that_fits_is_one_window_and_the_sequence_that_it_always_was():
    text = ids(1, 2, 3)
    (found,) = frame_windows(text, FRAME, tokens_max=5)
    assert found.tokens.tolist() == frame_single(text, FRAME, tokens_max=5).tokens.tolist()


@given(st.lists(tokens, min_size=1, max_size=6))
def test_parts_hold_every_token_and_the_frame_goes_with_the_first_and_the_last(texts):
    found = frame_parts(texts, FRAME)
    assert found.tokens.tolist() == [901, *np.concatenate(texts).tolist(), 902]
    assert sum(found.parts) == len(found)
    assert found.rows == len(texts)
    lengths = [len(text) for text in texts]
    lengths[0] += 1
    lengths[-1] += 1
    assert list(found.parts) == lengths
    assert not found.truncated


def test_one_part_is_the_sequence_that_it_always_was():
    found = frame_parts([ids(1, 2)], FRAME)
    assert found.tokens.tolist() == frame_single(ids(1, 2), FRAME, tokens_max=9).tokens.tolist()
    assert found.parts == (4,)
    bare = frame_parts([ids(1), ids(2, 3)], Frame(cls=None, sep=None))
    assert (bare.tokens.tolist(), bare.parts) == ([1, 2, 3], (1, 2))
