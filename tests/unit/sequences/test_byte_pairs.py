"""Vocabularies in tiktoken's format: the published file and no other, and ids back to text."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import InvalidRequest
from appliance.sequences.byte_pairs import CL100K, O200K, BytePairs, Encoding

WORDS = (b"hello", b" world", b" caf", "é".encode(), "東".encode())


def written(words=WORDS):
    """Return a file of every single byte and then some words, in tiktoken's format."""
    pieces = [bytes([byte]) for byte in range(256)] + list(words)
    return b"".join(base64.b64encode(p) + b" %d\n" % i for i, p in enumerate(pieces))


def encoding_of(raw, name="tiny", specials=frozenset({300})):
    return Encoding(name, "0" * 40, hashlib.sha256(raw).hexdigest(), specials)


RAW = written()
TINY = BytePairs(encoding_of(RAW), RAW)


def texts(*lists):
    return TINY.texts(lists, param="input", is_single=False, bytes_max=10_000)


def test_ids_are_laid_side_by_side():
    assert texts([256, 257], [258, 259]) == ["hello world", " café"]


@given(st.lists(st.text(min_size=1), max_size=4))
def test_any_text_comes_back_from_its_bytes(words):
    assert texts(*[list(word.encode()) for word in words]) == words


def test_half_a_character_is_the_sign_for_it():
    assert texts([*"é".encode()[:1]], [256, *"東".encode()[1:]]) == ["\ufffd", "hello\ufffd\ufffd"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([256, 300], r"^input\[1\]\[1\] is 300: a special token of tiny; send text alone$"),
        ([261], r"^input\[1\]\[0\] is 261: no token of tiny$"),
        ([1, 2, -1], r"^input\[1\]\[2\] is -1: no token of tiny$"),
    ],
)
def test_an_id_that_stands_for_no_text_is_named(ids, message):
    with pytest.raises(InvalidRequest, match=message):
        texts([256], ids)
    with pytest.raises(InvalidRequest, match=r"^input\[\d\] is "):
        TINY.texts([ids], param="input", is_single=True, bytes_max=10_000)


def test_another_file_is_not_read():
    with pytest.raises(ValueError, match="its sha256 is"):
        BytePairs(encoding_of(RAW), RAW + b"IQ== 999\n")


@pytest.mark.parametrize("line", [b"IQ==", b"IQ== x", b"!! 5", b"IQ== 1 2"])
def test_a_published_file_that_is_no_vocabulary_is_refused_by_its_line(line):
    raw = written([]) + line
    with pytest.raises(ValueError, match="line 257 is not base64"):
        BytePairs(encoding_of(raw), raw)


def test_the_published_ones_are_named_by_the_address_that_they_come_from():
    for encoding in (CL100K, O200K):
        address = f"https://openaipublic.blob.core.windows.net/encodings/{encoding.name}.tiktoken"
        assert encoding.cached == hashlib.sha1(address.encode()).hexdigest()
        assert len(encoding.sha256) == 64


def test_more_text_than_a_body_may_have_is_refused_before_it_is_joined():
    lists = [[token] * 10 for token in list(TINY._pieces)[:2]]
    size = sum(len(TINY._pieces[each[0]]) * 10 for each in lists)
    assert len(TINY.texts(lists, param="input", is_single=False, bytes_max=size)) == 2
    with pytest.raises(InvalidRequest, match=f"more than {size - 1} bytes"):
        TINY.texts(lists, param="input", is_single=False, bytes_max=size - 1)
