"""Bodies about tokens: bounded before they become objects, and whatever is wrong has its name."""

import json
import tracemalloc
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.wire.tokens import (
    detokenize_request,
    segment_request,
    token_lists,
    tokenize_request,
)

LIMITS = Limits(inputs_max=3, text_bytes_max=1000, body_bytes_max=100_000, request_tokens_max=10)


def lists(value, limits=LIMITS):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return token_lists(msgspec.Raw(body), limits, param="tokens")


def parsed(parse, **body):
    return parse(json.dumps({"model": "m", **body}).encode(), LIMITS)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], ([[1, 2]], True)),
        ([[1, 2], [3]], ([[1, 2], [3]], False)),
        (b" \n[ [0]]", ([[0]], False)),
        ([2**31 - 1], ([[2**31 - 1]], True)),
    ],
)
def test_one_list_and_several_are_told_apart(value, expected):
    assert lists(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "tokens is empty"),
        ([[1], []], r"tokens\[1\] is empty"),
        ([1] * 11, "more than 10 ids"),
        ([[1]] * 4, "more than 3 items"),
        ([-1], r"tokens\[0\]: Expected `int` >= 0"),
        ([[1], [2**31]], r"tokens\[1\]\[0\]: Expected `int` <= "),
        ([1.5], r"tokens\[0\]: Expected `int`"),
        ([1, [2]], r"tokens\[1\]: Expected `int`"),
        ([[1], 2], r"tokens\[1\]: Expected `array`"),
        ("1", "must be a list of token ids"),
        ({"a": 1}, "must be a list of token ids"),
        (b"[1, 2", "not valid JSON"),
    ],
)
def test_wrong_ids_are_refused_with_their_place(value, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        lists(value)
    assert caught.value.param == "tokens"


@pytest.mark.parametrize(
    "body", [b"[1" + b",1" * 3_000_000 + b"]", b"[[]" + b",[]" * 999_999 + b"]"]
)
def test_millions_are_refused_before_they_become_objects(body):
    raw = msgspec.Raw(body)
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match="split it"):
        token_lists(raw, Limits(), param="input")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(body) + 100_000


def test_the_fields_of_every_client_mean_the_same():
    for field in ("input", "text", "content", "inputs", "prompt"):
        found = parsed(tokenize_request, **{field: "a"})
        assert (found.texts, found.is_single, found.with_specials) == (["a"], True, True)
        assert not found.is_tei
    found = parsed(tokenize_request, input=["a"], text=None, add_special=False)
    assert (found.texts, found.is_single, found.with_specials) == (["a"], False, False)
    assert parsed(tokenize_request, model=None, inputs="a").is_tei
    assert parsed(detokenize_request, model=None, ids=[1]).is_tei
    assert not parsed(detokenize_request, ids=[1]).is_tei


def test_a_segment_of_jinas_is_known_by_its_field():
    found = parsed(segment_request, content="a", max_chunk_length=100)
    assert (found.text, found.chars_max, found.is_jina) == ("a", 100, True)
    found = parsed(segment_request, text="a", by=None)
    assert (found.by, found.tokens_max, found.overlap, found.is_jina) == (
        "sentences",
        None,
        0,
        False,
    )


@given(
    st.dictionaries(
        st.sampled_from(
            ("model", "input", "text", "content", "inputs", "tokens", "ids", "by", "overlap")
        ),
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.lists(st.integers() | st.text(max_size=2), max_size=3),
    )
)
def test_any_body_is_a_request_or_a_refusal_and_nothing_else(body):
    for parse in (tokenize_request, detokenize_request, segment_request):
        found = None
        with suppress(InvalidRequest):
            found = parse(json.dumps(body).encode(), LIMITS)
        assert found is None or found.model == body.get("model")
