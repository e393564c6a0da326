"""The input of a batch: what is a request of it, and what is told of a file that is wrong."""

import io
import json
from dataclasses import replace

import pytest

from appliance.batches.lines import ERRORS_MAX, check, raw_lines
from appliance.core.limits import Limits

LIMITS = Limits()
URL = "/v1/embeddings"
GOOD = {"custom_id": "a", "method": "POST", "url": URL, "body": {"model": "m", "input": "x"}}


def file_of(*lines):
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return io.BytesIO(b"\n".join(texts))


def codes(*lines, limits=LIMITS):
    return [(each.code, each.line) for each in check(file_of(*lines), URL, limits).errors]


def test_a_good_file_is_counted_and_blank_lines_are_not():
    lines = [{**GOOD, "custom_id": str(number)} for number in range(5)]
    checked = check(file_of(lines[0], b"", *lines[1:], b"  ", b""), URL, LIMITS)
    assert (checked.total, checked.errors) == (5, [])


def test_a_last_line_without_an_end_counts():
    assert check(io.BytesIO(json.dumps(GOOD).encode()), URL, LIMITS).total == 1


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b"[]", "invalid_json"),
        ({k: v for k, v in GOOD.items() if k != "custom_id"}, "missing_required_parameter"),
        ({**GOOD, "custom_id": ""}, "invalid_custom_id"),
        ({**GOOD, "custom_id": "x" * 513}, "invalid_custom_id"),
        ({**GOOD, "custom_id": 7}, "invalid_json"),
        ({**GOOD, "method": "GET"}, "invalid_method"),
        ({**GOOD, "url": "/v1/rerank"}, "invalid_url"),
        ({**GOOD, "body": []}, "invalid_body"),
        ({**GOOD, "body": None}, "invalid_body"),
    ],
)
def test_what_is_wrong_with_a_line_is_named_with_its_number(line, code):
    assert codes(GOOD, line, {**GOOD, "custom_id": "b"}) == [(code, 2)]


def test_a_custom_id_stands_once_in_a_file():
    assert codes(GOOD, {**GOOD, "custom_id": "b"}, GOOD) == [("duplicate_custom_id", 3)]


def test_no_more_errors_are_told_than_anybody_reads():
    assert len(codes(*[b"{"] * 300)) == ERRORS_MAX


def test_an_empty_file_and_one_that_is_too_long_are_wrong():
    few = replace(LIMITS, batch_lines_max=2)
    lines = [{**GOOD, "custom_id": str(number)} for number in range(3)]
    assert codes() == codes(b"", b" ") == [("empty_file", None)]
    assert codes(*lines, limits=few) == [("too_many_lines", 3)]
    assert codes(b"", b"", GOOD, limits=few) == [("too_many_lines", 3)]


def test_a_line_that_is_too_long_is_passed_over_and_never_in_memory():
    short = replace(LIMITS, body_bytes_max=200, text_bytes_max=100)
    long = {**GOOD, "custom_id": "long", "body": {"input": "x" * 1000}}
    assert codes(GOOD, long, {**GOOD, "custom_id": "b"}, limits=short) == [("line_too_long", 2)]
    pieces = list(raw_lines(file_of(b"x" * 1000, b"y"), 10))
    assert pieces == [(1, None), (2, b"y")]


def test_checking_ends_when_nobody_wants_to_know_any_more():
    lines = [{**GOOD, "custom_id": str(number)} for number in range(5)]
    assert check(file_of(*lines), URL, LIMITS, lambda: True).total == 0
