import base64
import json

import numpy as np
import pytest

from appliance.catalog.catalog import load, shipped_path
from appliance.core.errors import InvalidRequest, TokenInputUnsupported
from appliance.core.limits import Limits
from appliance.engine import vectors
from appliance.shapes import cohere
from appliance.tasks.embed import Embedded
from appliance.tasks.plan import Plan
from appliance.wire.questions import EmbeddingsRequest
from tests.server import EMBED

LIMITS = Limits()
ROWS = vectors.l2_normalise(
    np.array([[3, 4, 0, -1, 2, 2, -2, 1], [1, -1, 1, -1, 1, -1, 1, -1]], "f4")
)


def task(version=2, **body):
    sent = json.dumps({"model": "m", "texts": ["a", "b"], **body}).encode()
    return cohere.embed_task(sent, LIMITS, request_id="r", version=version)


def answer(tmp_path, version=2, **body):
    asked = task(version, **body)
    spec = load(shipped_path(), None, tmp_path).find(EMBED)
    return json.loads(asked.write(Embedded(asked.sent, spec, Plan([], 7, 0), ROWS)))


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({}, "types", ("float",)),
        ({"embedding_types": ["int8", "base64", "float"]}, "types", ("int8", "float")),
        ({"input_type": "search_query"}, "input_type", "query"),
        ({"input_type": "clustering"}, "input_type", None),
        ({"output_dimension": 4}, "dimensions", 4),
        ({"truncate": "START"}, "cut", "start"),
        ({"truncate": "NONE"}, "cut", "none"),
        ({"texts": "a"}, "texts", ["a"]),
        (
            {
                "texts": None,
                "inputs": [
                    {"content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}
                ],
            },
            "texts",
            ["x\ny"],
        ),
    ],
)
def test_every_word_is_understood(body, field, value):
    assert getattr(task(**body).sent, field) == value


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"texts": None}, "texts"),
        ({"texts": []}, "texts"),
        ({"texts": [""]}, "texts"),
        ({"images": ["data:"]}, "images"),
        ({"input_type": "image"}, "input_type"),
        ({"embedding_types": ["int4"]}, "embedding_types"),
        ({"embedding_types": ["int8", "int8"]}, "embedding_types"),
        ({"embedding_types": ["float"] * 17}, "embedding_types"),
        ({"embedding_types": ["float"] * 100_000}, "embedding_types"),
        ({"inputs": [{"content": [{"type": "text", "text": "x"}]}]}, "inputs"),  # and texts
        ({"texts": None, "inputs": [{"content": []}] * 20_000}, "inputs"),
        (
            {"texts": None, "inputs": [{"content": [{"type": "text", "text": "x" * 1_000_001}]}]},
            "inputs",
        ),
        ({"truncate": "LEFT"}, "truncate"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"texts": None, "inputs": [{"content": [{"type": "image_url"}]}]}, "inputs"),
        ({"texts": None, "inputs": [{"content": []}]}, "inputs"),
    ],
)
def test_a_wrong_field_is_named(body, param):
    with pytest.raises(InvalidRequest) as refused:
        task(**body)
    assert refused.value.param == param


def test_token_ids_are_refused():
    with pytest.raises(TokenInputUnsupported, match="texts holds token ids"):
        task(texts=[[1, 2]])


def test_the_second_version_answers_a_list_for_each_kind(tmp_path):
    found = answer(tmp_path, embedding_types=["float", "int8", "ubinary", "base64"])
    by_type = found.pop("embeddings")
    assert list(by_type) == ["float", "int8", "ubinary", "base64"]
    np.testing.assert_allclose(by_type["float"], ROWS, atol=1e-6)
    assert by_type["int8"] == vectors.in_type(ROWS, "int8").tolist()
    assert by_type["ubinary"] == np.packbits(ROWS > 0, axis=1).tolist()
    assert [base64.b64decode(row) for row in by_type["base64"]] == [row.tobytes() for row in ROWS]
    assert found == {
        "id": "r",
        "texts": ["a", "b"],
        "response_type": "embeddings_by_type",
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 7}},
    }
    assert list(answer(tmp_path)["embeddings"]) == ["float"]


def test_the_first_version_answers_a_bare_list_unless_kinds_were_asked_for(tmp_path):
    found = answer(tmp_path, version=1)
    np.testing.assert_allclose(found["embeddings"], ROWS, atol=1e-6)
    assert found["response_type"] == "embeddings_floats"
    assert list(answer(tmp_path, version=1, embedding_types=["int8"])["embeddings"]) == ["int8"]


def test_the_texts_that_an_answer_repeats_are_counted():
    spec_bytes = EmbeddingsRequest(model="m", texts=["a" * 1000])
    assert task(texts=spec_bytes.texts).echoes
