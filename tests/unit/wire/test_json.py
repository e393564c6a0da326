import re
import tracemalloc
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import InvalidRequest
from appliance.wire.json import decode, decode_leniently, encode


class Item(msgspec.Struct):
    name: str
    count: int = 0


class Body(msgspec.Struct):
    items: list[Item]
    item: Item | None = None


def refused(body, kind=Body, **options):
    with pytest.raises(InvalidRequest) as error:
        decode(body, kind, **options)
    return error.value


def test_a_good_body_is_its_type():
    found = decode(b'{"items": [{"name": "a", "other": [1]}]}', Body)
    assert found == Body([Item("a", 0)])


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"{}", None, "Object missing required field `items`"),
        (b'{"items": 3}', "items", "items: Expected `array`, got `int`"),
        (b'{"items": [{"name": "a"}, {"name": 5}]}', "items", r"items\[1\]\.name: Expected `str`"),
        (
            b'{"items": [], "item": {"name": "a", "count": "x"}}',
            "item",
            r"item\.count: Expected `int`",
        ),
        (b"[]", None, "Expected `object`, got `array`"),
        (b"null", None, "Expected `object`, got `null`"),
    ],
)
def test_a_wrong_shape_names_the_field(body, param, message):
    error = refused(body)
    assert error.param == param
    assert re.search(message, error.message)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"[1]", "input[0]: Expected `str`"),
        (b"7", "input: Expected `array`"),
        (b'["a", null]', "input[1]"),
    ],
)
def test_a_part_of_a_body_is_named_by_its_place_in_the_whole(body, where):
    error = refused(body, list[str], param="input")
    assert error.param == "input"
    assert error.message.startswith(where)


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"items": [}', b"{'a': 1}", b'{"a": NaN}', b"\x00", b'{"items": []} x'],
)
def test_what_is_no_json_is_said_to_be_none(body):
    assert refused(body).message.startswith("The body is not valid JSON")


def test_what_is_no_utf8_is_said_to_be_none():
    assert refused(b'{"items": [{"name": "\xff\xfe"}]}').code == "invalid_request"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_deeply_nested_body_is_refused(opening):
    assert refused(opening * 1_000_000, msgspec.Raw).code == "invalid_request"
    assert refused(b'{"items": ' + opening * 1_000_000).code == "invalid_request"


@given(st.binary(max_size=60))
def test_no_bytes_let_a_foreign_error_escape(body):
    for kind in (Body, list, str):
        assert isinstance(outcome(body, kind), kind | InvalidRequest)


def outcome(body, kind):
    try:
        return decode(body, kind)
    except InvalidRequest as error:
        return error


def test_decimals_leave_as_exact_numbers():
    amounts = [Decimal("0.000000000008"), Decimal(8_000_000), Decimal("0.1")]
    assert encode(amounts) == b"[8E-12,8000000,0.1]"
    assert [Decimal(str(x)) for x in msgspec.json.decode(encode(amounts))] == amounts


def test_text_of_every_script_arrives_as_it_left():
    text = 'naïve 漢字 😀 \u2028 </script> " \\ \x07'
    assert msgspec.json.decode(encode({"text": text})) == {"text": text}


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t "])
def test_an_empty_body_is_said_to_be_empty(body):
    assert refused(body).message == "The body is empty; send a JSON object."


@pytest.mark.parametrize("body", [b'{"items": [', b'{"items', b'{"items": "abc'])
def test_a_body_that_was_cut_is_said_to_end_too_early(body):
    assert "ends before the document does" in refused(body).message


@pytest.mark.parametrize(
    ("text", "half"),
    [
        (rb"\ud800", r"\ud800"),
        (rb"ab\uDBFF", r"\uDBFF"),
        (rb"\ud800\u0041", r"\ud800"),
        (rb"\udc00 and more", r"\udc00"),
        (rb"\udc00\ud800", r"\udc00"),
        (rb"\ud83d\ude00\ude00", r"\ude00"),
        (rb"\\\\\ud800 and more and more", r"\ud800"),
    ],
)
def test_half_of_a_surrogate_pair_is_named(text, half):
    for where in (b'{"items": [], "item": {"name": "%s"}}', b'{"items": [], "other": "%s"}'):
        message = refused(where % text).message
        assert f"{half} is half of a surrogate pair" in message


@pytest.mark.parametrize("text", [rb"\\ud800", rb"\ud83d\ude00", rb"\\\\udc00", "😀".encode()])
def test_whole_pairs_and_escaped_backslashes_are_no_halves(text):
    whole = b'{"items": [], "item": {"name": "%s"}}' % text
    assert decode(whole, Body).item
    assert "surrogate" not in refused(whole[:-1]).message


def test_looking_for_halves_takes_no_long_time_whatever_the_body():
    for piece in (rb"\\", rb"\ud83d\ude00", b"\\", rb"\u"):
        refused(b'{"items": "' + piece * (2_000_000 // len(piece)))


class Asked(msgspec.Struct):
    dimensions: int | None = None
    normalized: bool | None = None
    word: str | None = None


@pytest.mark.parametrize("text", ["null", "Null", "NULL", "\\u006eull"])
@pytest.mark.parametrize("field", ["dimensions", "normalized"])
def test_the_text_null_is_no_null(field, text):
    with pytest.raises(InvalidRequest, match=f'{field}: "null" is a text') as error:
        decode_leniently(f'{{"{field}": "{text}"}}'.encode(), Asked)
    assert error.value.param == field


def test_null_itself_and_the_word_null_are_taken_as_they_are():
    found = decode_leniently(b'{"dimensions": null, "word": "null", "x": "null"}', Asked)
    assert found == Asked(word="null")
    assert decode_leniently(b'{"dimensions": "3", "normalized": "true"}', Asked).dimensions == 3


def test_a_body_of_backslashes_takes_no_memory_for_each_of_them():
    body = b'{"x": "' + b"\\\\" * 300_000
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            decode(body, Asked)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(body)
