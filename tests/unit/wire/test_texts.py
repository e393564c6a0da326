import json
import re
import tracemalloc

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.wire import texts
from appliance.wire.texts import holds_token_ids, require_text, rerank_documents, texts_of

LIMITS = Limits(inputs_max=5, text_bytes_max=1000, body_bytes_max=100_000)


def inputs(value, limits=LIMITS):
    return texts_of(raw(value), limits, param="input")


def documents(value, *, fields=None, limits=LIMITS):
    return rerank_documents(raw(value), limits, param="documents", fields=fields)


def raw(value):
    return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())


def refused(function, *arguments, **options):
    with pytest.raises(InvalidRequest) as error:
        function(*arguments, **options)
    return error.value


# -- input --------------------------------------------------------------------------------------


def test_a_string_is_a_list_of_one():
    assert inputs("hello") == ["hello"]


def test_a_text_may_stand_in_an_object_as_jina_s_clients_send_it():
    assert inputs([{"text": "a"}, "b"]) == ["a", "b"]


def test_a_list_is_kept_in_order():
    assert inputs(["b", "a", "b"]) == ["b", "a", "b"]


@pytest.mark.parametrize("body", [b'  "a"', b' \n\t[ "a" ]'])
def test_white_space_around_is_nothing(body):
    assert inputs(body) == ["a"]


@pytest.mark.parametrize(
    "body",
    [b"[1, 2, 3]", b"[[1, 2], [3]]", b"[ -1]", b"[\n\t 0]", b"[[]]", b"[" + b" " * 60 + b"7]"],
)
def test_token_ids_are_known_by_their_beginning(body):
    assert holds_token_ids(raw(body))
    refused(inputs, body)


@pytest.mark.parametrize("body", [b'"a"', b'["1"]', b"[]", b"{}", b"5", b'[ "[1]" ]'])
def test_texts_are_no_token_ids(body):
    assert not holds_token_ids(raw(body))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", r"input\[0\] is empty"),
        (["a", ""], r"input\[1\] is empty"),
        ([], "input is empty"),
        (["a"] * 6, "input has more than 5 items; split it"),
        ("a" * 1001, r"input\[0\] is larger than 1000 bytes"),
        (["a", "é" * 501], r"input\[1\] is larger than 1000 bytes"),
        ({"text": "a"}, "input must be a string or a list of strings"),
        (5, "input must be a string or a list of strings"),
        (None, "input must be a string or a list of strings"),
        (True, "input must be a string or a list of strings"),
        (["a", 5], r"input\[1\]: Expected `str`"),
        (["a", None], r"input\[1\]: Expected `str`"),
        ([{"body": "a"}], r"input\[0\] has no string 'text'"),
        (b"", "input is missing; it is a string or a list of strings"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_with_the_reason(value, message):
    error = refused(inputs, value)
    assert error.param == "input"
    assert re.search(message, error.message)


@pytest.mark.parametrize("value", ["a" * 1000, "é" * 500, "😀" * 250, ["a"] * 5])
def test_the_bounds_themselves_are_allowed(value):
    assert inputs(value) == ([value] if isinstance(value, str) else value)


# -- documents ----------------------------------------------------------------------------------


def test_documents_are_strings_or_objects_with_a_text():
    assert documents(["a", {"text": "b", "id": [1, {"x": None}]}, ""]) == ["a", "b", ""]


def test_the_fields_asked_for_are_joined_in_their_order():
    found = documents(
        ["plain", {"title": "t", "body": "b", "other": 1}, {"body": "only"}],
        fields=["title", "body"],
    )
    assert found == ["plain", "t\nb", "only"]


@pytest.mark.parametrize(
    ("value", "fields", "message"),
    [
        ([], None, "documents is empty"),
        ("a", None, "documents must be a list of strings"),
        ({"0": "a"}, None, "documents must be a list of strings"),
        (["a"] * 6, None, "documents has more than 5 items; split it"),
        ([{"text": "a"}] * 6, None, "more than 5 items; split it"),
        (["a", "x" * 1001], None, r"documents\[1\] is larger than 1000 bytes"),
        ([{"text": "x" * 1001}], None, r"documents\[0\] is larger than 1000 bytes"),
        ([{"body": "a"}], None, r"documents\[0\].*text"),
        ([{"text": 5}], None, r"documents\[0\]\.text: Expected `str`"),
        ([5], None, r"documents\[0\]: Expected"),
        ([{"text": "a"}], ["body"], r"documents\[0\] has no string 'body'"),
        ([{"body": 5}], ["title", "body"], r"documents\[0\]\.body: Expected `str`"),
        ([{"other": 5}], ["title", "body"], r"documents\[0\] has no string 'title' or 'body'"),
    ],
)
def test_what_is_no_list_of_documents_is_refused_with_the_reason(value, fields, message):
    error = refused(documents, value, fields=fields)
    assert error.param == "documents"
    assert re.search(message, error.message)


@pytest.mark.parametrize("field", ['a"b', "a\\b", "a\nb", "\x00"])
def test_a_field_that_cannot_be_a_name_in_json_is_refused_by_its_own_name(field):
    error = refused(documents, [{"text": "a"}], fields=["text", field])
    assert error.param == "rank_fields"


def test_a_single_text_is_neither_empty_nor_too_large():
    assert require_text("a" * 1000, LIMITS, param="query") is None
    assert refused(require_text, "", LIMITS, param="query").message == "query is empty"
    error = refused(require_text, "a" * 1001, LIMITS, param="query")
    assert error.message == "query[0] is larger than 1000 bytes"


# -- counting before decoding -------------------------------------------------------------------

awkward = st.text(
    st.sampled_from('"\\{}[],: \n\té漢😀\u2028ab') | st.characters(codec="utf-8"), max_size=8
)


@given(st.lists(awkward, min_size=1, max_size=5), st.booleans())
@example(["\\"] * 5, True)
@example(['"'] * 5, False)
@example(['\\\\"', '{"', '"}', "\\u0022", '",","'], True)
def test_a_list_within_the_limits_is_never_refused_whatever_its_strings_hold(values, ascii_only):
    body = json.dumps(values, ensure_ascii=ascii_only).encode()
    assert texts.require_count(body, LIMITS, param="input") is None
    assert rerank_documents(msgspec.Raw(body), LIMITS, param="documents", fields=None) == values


@given(st.lists(awkward, min_size=6, max_size=9))
def test_a_list_over_the_limits_is_refused_before_or_after_decoding(values):
    body = msgspec.Raw(json.dumps(values).encode())
    with pytest.raises(InvalidRequest, match="items"):
        rerank_documents(body, LIMITS, param="documents", fields=None)


def test_millions_of_strings_are_refused_before_any_is_made(monkeypatch):
    monkeypatch.setattr(texts, "decode", lambda *_, **__: pytest.fail("it was decoded"))
    body = msgspec.Raw(b"[" + b'"",' * 1_000_000 + b'""]')
    for refuse in (
        lambda: texts_of(body, Limits(), param="input"),
        lambda: rerank_documents(body, Limits(), param="documents", fields=None),
    ):
        assert "has more than 2048 items; split it" in refused(refuse).message


def test_what_an_object_holds_beside_its_text_never_becomes_python_objects():
    bomb = b'[{"y": [' + b"{}," * 200_000 + b'{}], "text": "a"}]'
    tracemalloc.start()
    try:
        found = rerank_documents(
            msgspec.Raw(bomb), Limits(), param="documents", fields=["text", "z"]
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == ["a"]
    assert peak < 4 * len(bomb)


def test_decoding_ends_at_the_first_object_too_many():
    many = b"[" + b'{"text":"a"},' * 500_000 + b'{"text":"a"}]'
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="more than 2048 items"):
            rerank_documents(msgspec.Raw(many), Limits(), param="documents", fields=None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(many)
