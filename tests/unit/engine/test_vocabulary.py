"""BERT's entries: the text of ids gives the same ids, and people can read it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.reference_tokenizer import reference_tokenizer
from tests.unit.engine.test_tokenizer import CONTROL, METADATA, TEXTS, UNK

TOKENIZER = reference_tokenizer(METADATA)
assert TOKENIZER is not None
VOCABULARY = TOKENIZER.vocabulary


def ids(*values):
    return np.array(values, np.int32)


def encoded(text):
    (tokens,) = TOKENIZER.encode([text])
    return tokens


def again(text):
    """Return ids that went to text and back, without unknown words: those have no spelling."""
    tokens = encoded(text)
    if (tokens == UNK).any():
        tokens = tokens[tokens != UNK]
    while len(tokens) and VOCABULARY.pieces(tokens[:1])[0].startswith("##"):
        tokens = tokens[1:]
    return tokens, encoded(VOCABULARY.text(tokens))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_text_of_ids_gives_the_same_ids(text):
    tokens, back = again(text)
    if "##" not in "".join(VOCABULARY.pieces(tokens)) or UNK not in encoded(text):
        assert back.tolist() == tokens.tolist()


@given(st.text("abcz .,;:!?'()[]{}%-\"", max_size=60))
def test_punctuation_needs_no_spaces_around_it(text):
    if UNK not in encoded(text):
        tokens, back = again(text)
        assert back.tolist() == tokens.tolist()


def test_special_tokens_are_those_that_no_text_can_have():
    every = np.arange(VOCABULARY.size, dtype=np.int32)
    special = set(np.flatnonzero(VOCABULARY.special(every)).tolist())
    assert UNK not in special
    assert set(CONTROL.values()) - {UNK} <= special
    names = METADATA["tokenizer.ggml.tokens"]
    assert VOCABULARY.size == len(names)
    for token in special | {UNK}:
        assert VOCABULARY.pieces(ids(token)) == [names[token]]
        assert VOCABULARY.text(ids(token)) == names[token]


def test_no_ids_are_no_text():
    assert VOCABULARY.text(ids()) == ""
    assert VOCABULARY.pieces(ids()) == []
    assert VOCABULARY.special(ids()).tolist() == []


@pytest.mark.parametrize("text", ["hello, world", "  été 東京!", "", "x" * 200 + " a"])
def test_each_token_lies_where_the_reference_says(text):
    tokens = encoded(text)
    spans = TOKENIZER.spans(text, tokens)
    assert spans is not None
    assert spans.shape == (len(tokens), 2)
    for start, end in spans.tolist():
        assert 0 <= start < end <= len(text)
        assert text[start:end].strip() == text[start:end]
