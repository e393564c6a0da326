"""Segments: none is too long, nothing is lost, and they are as few as greed makes them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import InvalidRequest
from appliance.sequences.boundaries import levels, sentences
from appliance.sequences.segments import Cut, segments
from tests.unit.sequences.test_boundaries import MARKDOWN, texts

SPECIALS = 2
BYS = st.sampled_from(["tokens", "sentences", "markdown"])


def by_words(text):
    """A model whose tokens are words, framed by two special ones."""
    return len(text.split()) + SPECIALS


def by_pairs(text):
    """A model that reads two bytes as one token: two texts have more or fewer than together."""
    return -(-len(text.encode("utf-8", "replace")) // 2) + SPECIALS


def parts(text, count=by_words, **cut):
    found = list(segments(text, Cut(**cut), count, SPECIALS))
    return [text[each.start : each.end] for each in found]


@given(texts, BYS, st.integers(5, 30), st.sampled_from([by_words, by_pairs]))
def test_segments_side_by_side_are_the_text_and_none_is_too_long(text, by, tokens_max, count):
    found = list(segments(text, Cut(by, tokens_max), count, SPECIALS))
    assert "".join(text[each.start : each.end] for each in found) == text
    for each in found:
        assert each.tokens == count(text[each.start : each.end]) <= tokens_max
        assert each.start < each.end


@given(texts, BYS, st.integers(8, 30), st.integers(1, 4), st.sampled_from([by_words, by_pairs]))
def test_an_overlap_repeats_at_most_what_was_said_and_loses_nothing(
    text, by, tokens_max, overlap, count
):
    found = list(segments(text, Cut(by, tokens_max, overlap), count, SPECIALS))
    end = last_start = 0
    joined = ""
    for number, each in enumerate(found):
        assert each.tokens == count(text[each.start : each.end]) <= tokens_max
        assert each.start <= end < each.end
        if number:
            assert each.start > last_start
        if each.start < end:
            assert count(text[each.start : end]) - SPECIALS <= overlap
        joined += text[end : each.end]
        end, last_start = each.end, each.start
    assert joined == text


@given(texts, st.integers(4, 20), st.integers(1, 30))
def test_characters_can_be_bounded_too(text, tokens_max, chars_max):
    cut = Cut("sentences", tokens_max, chars_max=chars_max)
    found = list(segments(text, cut, by_words, SPECIALS))
    assert "".join(text[each.start : each.end] for each in found) == text
    assert all(each.end - each.start <= chars_max for each in found)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(8, 20))
def test_sentences_are_packed_greedily(lengths, tokens_max):
    text = "".join("Aa" + " bb" * (length - 1) + ". " for length in lengths)
    found = list(segments(text, Cut("sentences", tokens_max), by_words, SPECIALS))
    ends = sentences(text, 0, len(text))
    for each, after in pairwise(found):
        assert each.end in ends
        following = ends[ends.index(each.end) + 1]
        assert by_words(text[each.start : following]) > tokens_max
        assert after.start == each.end


def test_a_long_sentence_is_cut_at_words_and_shares_a_segment_with_no_other():
    text = "Short one. " + "Word " * 12 + "end. Short two."
    found = parts(text, by="sentences", tokens_max=8)
    assert found[0] == "Short one. "
    assert found[1] == "Word " * 6
    assert found[-2:] == ["end. ", "Short two."]


def test_a_long_word_is_cut_between_signs():
    text = "aa " + "e\u0301" * 10 + " bb"
    found = parts(text, by_pairs, by="tokens", tokens_max=6)
    assert "".join(found) == text
    assert all(not part.startswith("\u0301") for part in found)
    assert max(map(by_pairs, found)) <= 6


def test_markdown_is_cut_at_the_highest_heading_that_lets_it_fit():
    assert parts(MARKDOWN, by="markdown", tokens_max=60) == [MARKDOWN]
    found = parts(MARKDOWN, by="markdown", tokens_max=28)
    assert [part.split("\n")[0] for part in found] == ["intro", "Three"]
    found = parts(MARKDOWN, by="markdown", tokens_max=16)
    assert [part.split("\n")[0] for part in found] == ["intro", "# One", "## Two", "Three"]


def test_a_character_that_does_not_fit_is_refused_with_its_place():
    with pytest.raises(InvalidRequest, match="character at 3 alone has 4") as caught:
        parts("abc👩", by_pairs, by="tokens", tokens_max=3)
    assert caught.value.param == "tokens_max"


@pytest.mark.parametrize("by", ["tokens", "sentences", "markdown"])
def test_the_work_grows_with_the_text_and_not_with_its_square(by):
    counted = 0

    def count(text):
        nonlocal counted
        counted += len(text)
        return by_pairs(text)

    for text in ("word and more. " * 4_000, "x" * 60_000, "x\n" * 30_000, "# a\n\n" * 12_000):
        counted = 0
        found = list(segments(text, Cut(by, 64), count, SPECIALS))
        assert len(found) < 1_000
        assert counted < 12 * len(text) + len(levels(by, "")) * len(text)


@pytest.mark.parametrize("repeats", [10, 160])
def test_a_text_whose_parts_differ_in_tokens_is_not_counted_again_for_each_segment(repeats):
    text = ("x" * 15 + " " * 2_000) * repeats
    counted = 0

    def dense(part):
        nonlocal counted
        counted += len(part)
        return len(part) - part.count(" ") + SPECIALS

    found = list(segments(text, Cut("tokens", 16), dense, SPECIALS))
    assert "".join(text[each.start : each.end] for each in found) == text
    assert counted <= 15 * len(text)
