"""llama.cpp's vocabularies: ids come back as the text that they came from, byte by byte."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.llama.tokenizer import LlamaTokenizer
from tests.decoders import VOCABULARY, weights, write_decoder
from tests.encoders import UNIGRAM, modern_weights, write_modern, write_xlmr, xlmr_weights
from tests.models import write_tiny_gguf

MIXED = "the cat sat\n on\tthe  mat, été 東京 👩\u200d👧 \x00 e\u0301"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vocabularies")


def opened(path):
    tokenizer = LlamaTokenizer(path)
    yield tokenizer
    tokenizer.close()


@pytest.fixture(scope="module")
def decoder(folder: Path):
    path = folder / "decoder.gguf"
    write_decoder(path, weights(seed=1))
    yield from opened(path)


@pytest.fixture(scope="module")
def modern(folder: Path):
    yield from opened(write_modern(folder / "modern.gguf", modern_weights(seed=1)))


@pytest.fixture(scope="module")
def unigram(folder: Path):
    yield from opened(write_xlmr(folder / "xlmr.gguf", xlmr_weights(seed=1)))


@pytest.fixture(scope="module")
def wordpiece(folder: Path):
    yield from opened(write_tiny_gguf(folder / "tiny.gguf", seed=1))


def ids(*values):
    return np.array(values, np.int32)


def encoded(tokenizer, text):
    (tokens,) = tokenizer.encode([text])
    return tokens


@given(text=st.text(max_size=60) | st.text("the cat\n ", max_size=60))
def test_byte_level_ids_are_the_text_exactly(decoder, modern, text):
    for tokenizer in (decoder, modern):
        tokens = encoded(tokenizer, text)
        assert tokenizer.vocabulary.text(tokens) == text
        assert "".join(tokenizer.vocabulary.pieces(tokens)).count("\ufffd") >= text.count("\ufffd")
        assert not tokenizer.vocabulary.special(tokens).any()


@given(text=st.text(max_size=60))
def test_byte_level_spans_cover_the_text_in_order(decoder, text):
    tokens = encoded(decoder, text)
    spans = decoder.spans(text, tokens)
    assert spans is not None
    assert spans.shape == (len(tokens), 2)
    assert (spans[:, 0] <= spans[:, 1]).all()
    if len(tokens):
        assert spans[0, 0] == 0
        assert spans[-1, 1] == len(text)
        assert (spans[1:, 0] <= spans[:-1, 1]).all()


def test_each_token_lies_where_its_piece_stands(decoder):
    text = "the cat sat on é東"
    tokens = encoded(decoder, text)
    spans = decoder.spans(text, tokens).tolist()
    pieces = decoder.vocabulary.pieces(tokens)
    for (start, end), piece in zip(spans, pieces, strict=True):
        if "\ufffd" not in piece:
            assert text[start:end] == piece
    assert pieces[:3] == ["the", " cat", " sat"]
    assert spans[-3:] == [[16, 17]] * 3, "three bytes of one character"
    assert spans[-5:-3] == [[15, 16]] * 2


def test_a_unigrams_first_space_is_the_tokenizers_own(unigram):
    text = "cat sat on a mat"
    tokens = encoded(unigram, text)
    assert unigram.vocabulary.text(tokens) == text
    assert "".join(unigram.vocabulary.pieces(tokens)) == f" {text}"
    spans = unigram.spans(text, tokens)
    assert [text[start:end] for start, end in spans.tolist()][:2] == ["c", "a"]
    assert spans[-1].tolist() == [len(text) - 1, len(text)]
    # Of two spaces it keeps one: where its tokens stand cannot be told any more.
    assert unigram.spans("cat  sat", encoded(unigram, "cat  sat")) is None
    assert unigram.vocabulary.text(encoded(unigram, "cat  sat")) == "cat sat"


def test_wordpieces_of_the_library_read_as_words(wordpiece):
    tokens = encoded(wordpiece, "reset the cat")
    assert wordpiece.vocabulary.text(tokens) == "reset the cat"


def test_control_tokens_are_special_and_written_by_their_names(decoder, unigram):
    end = VOCABULARY.index("<|endoftext|>")
    found = decoder.vocabulary.special(ids(0, end, end + 1))
    assert found.tolist() == [False, True, True]
    assert decoder.vocabulary.text(ids(end)) == "<|endoftext|>"
    assert decoder.vocabulary.pieces(ids(end + 1)) == ["<|startoftext|>"]
    specials = unigram.vocabulary.special(ids(0, 1, 2, 3, 4))
    assert specials.tolist() == [True, True, True, False, False], "texts do have unknown tokens"


@pytest.mark.parametrize("ask", ["pieces", "special", "text"])
@pytest.mark.parametrize("token", [-1, len(VOCABULARY), 2**31 - 1])
def test_an_id_outside_is_never_asked_of_the_library(decoder, ask, token):
    assert decoder.vocabulary.size == len(VOCABULARY)
    with pytest.raises(AssertionError):
        getattr(decoder.vocabulary, ask)(ids(0, token))


def test_no_ids_are_no_text(decoder, unigram):
    assert unigram.vocabulary.size == len(UNIGRAM)
    for tokenizer in (decoder, unigram):
        assert tokenizer.vocabulary.text(ids()) == ""
        assert tokenizer.vocabulary.pieces(ids()) == []
        assert tokenizer.vocabulary.special(ids()).tolist() == []


def test_every_entry_can_be_spelled_from_several_threads(modern):
    every = np.arange(modern.vocabulary.size, dtype=np.int32)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(modern.vocabulary.pieces(every)))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 4
    assert all(each == found[0] for each in found)
    assert modern.vocabulary.text(encoded(modern, MIXED)) == MIXED
