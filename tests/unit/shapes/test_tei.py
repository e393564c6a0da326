import json

import pytest

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.shapes import tei

LIMITS = Limits()


def question(**body):
    return tei.embed_task(json.dumps({"inputs": "a", **body}).encode(), LIMITS).sent


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({}, "model", None),
        ({}, "param", "inputs"),
        ({"inputs": ["a", "b"]}, "texts", ["a", "b"]),
        ({"truncate": False}, "cut", "none"),
        ({"truncate": True, "truncation_direction": "Left"}, "cut", "start"),
        ({"normalize": False}, "normalize", False),
        ({"dimensions": 8}, "dimensions", 8),
        ({"prompt_name": "query"}, "input_type", "query"),
        ({"model": "m#document"}, "input_type", "document"),
        ({"options": {"wait_for_model": True}}, "texts", ["a"]),
        ({"parameters": {}}, "texts", ["a"]),
        ({"parameters": None}, "texts", ["a"]),
    ],
)
def test_every_word_is_understood(body, field, value):
    assert getattr(question(**body), field) == value


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"inputs": None}, "inputs"),
        ({"inputs": {"source_sentence": "a"}}, "inputs"),
        ({"truncation_direction": "up"}, "truncation_direction"),
        ({"prompt_name": "sts"}, "prompt_name"),
        ({"parameters": {"normalize": True}}, "parameters"),
        ({"parameters": [[]] * 100_000}, "parameters"),
    ],
)
def test_a_wrong_field_is_named(body, param):
    with pytest.raises(InvalidRequest) as refused:
        question(**body)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"texts": ["a"]}, True),
        ({"texts": ["a"], "inputs": None}, True),
        ({"texts": ["a"], "inputs": "b"}, False),
        ({"inputs": '"texts"'}, False),
        ({"inputs": "a"}, False),
    ],
)
def test_a_body_of_cohere_is_told_from_one_of_tei(body, expected):
    assert tei.is_of_cohere(json.dumps(body).encode()) is expected
