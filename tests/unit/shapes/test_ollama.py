import json

import pytest

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.shapes import ollama

LIMITS = Limits()


def newer(**body):
    sent = json.dumps({"model": "m", "input": "a", **body}).encode()
    return ollama.embed_task(sent, LIMITS, elapsed_ns=lambda: 5).sent


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({"model": "owner/m:latest"}, "model", "owner/m"),
        ({"model": "m:q8"}, "model", "m:q8"),
        ({"input": ["a", "b"]}, "texts", ["a", "b"]),
        ({"truncate": False}, "cut", "none"),
        ({"dimensions": 8, "options": {"num_ctx": 1}, "keep_alive": "5m"}, "dimensions", 8),
    ],
)
def test_every_word_is_understood(body, field, value):
    assert getattr(newer(**body), field) == value


def test_the_older_route_has_one_prompt():
    found = ollama.older_task(b'{"model": "m#query", "prompt": "a"}', LIMITS).sent
    assert (found.model, found.input_type, found.texts, found.param) == (
        "m",
        "query",
        ["a"],
        "prompt",
    )
    for body in (
        b'{"model": "m"}',
        b'{"prompt": ["a", "b"]}',
        b'{"prompt": ""}',
        b'{"prompt": [1]}',
    ):
        with pytest.raises(InvalidRequest) as refused:
            ollama.older_task(body, LIMITS)
        assert refused.value.param == "prompt"
