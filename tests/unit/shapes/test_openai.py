import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import ApplianceError, InvalidRequest, TokenInputUnsupported
from appliance.core.limits import Limits
from appliance.shapes import cohere, ollama, openai, tei
from appliance.shapes.rerank import rerank_task
from appliance.wire.questions import EmbeddingsRequest, RerankRequest

LIMITS = Limits()


def embeddings(**body):
    sent = json.dumps({"model": "m", "input": "a", **body}).encode()
    return openai.embed_task(sent, LIMITS).sent


def refused(function, **body):
    with pytest.raises(InvalidRequest) as error:
        function(**body)
    return error.value


def test_the_least_that_openai_sends_is_enough():
    assert embeddings() == EmbeddingsRequest(model="m", texts=["a"])


def test_everything_that_openai_sends_is_understood_or_ignored():
    found = embeddings(
        input=["a", "b"], encoding_format="base64", dimensions=64, user="u", stream=False, extra={}
    )
    assert found == EmbeddingsRequest(model="m", texts=["a", "b"], base64=True, dimensions=64)


@pytest.mark.parametrize(
    ("body", "model", "kind"),
    [
        ({"input_type": "query"}, "m", "query"),
        ({"input_type": "search_document"}, "m", "document"),
        ({"input_type": None}, "m", None),
        ({"model": "owner/m#query"}, "owner/m", "query"),
        ({"model": "m#document", "input_type": "query"}, "m", "query"),
    ],
)
def test_the_kind_of_a_text_is_told_by_a_field_or_after_the_models_name(body, model, kind):
    found = embeddings(**body)
    assert (found.model, found.input_type) == (model, kind)


def test_another_word_after_the_models_name_is_refused():
    error = refused(embeddings, model="m#clustering")
    assert (error.param, "query or document" in error.message) == ("model", True)


@pytest.mark.parametrize("field", ["encoding_format", "dimensions", "truncate", "user"])
def test_null_means_not_given(field):
    assert embeddings(**{field: None}) == embeddings()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m" * 501}, "model"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": -1}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"dimensions": 10**30}, "dimensions"),
        ({"truncate": "yes"}, "truncate"),
        ({"input_type": "image"}, "input_type"),
        ({"task": "retrieval"}, "task"),
        ({"output_dtype": "int4"}, "output_dtype"),
        ({"embedding_type": ["float", "binary"]}, "embedding_type"),
        ({"embedding_type": []}, "embedding_type"),
        ({"embedding_type": ["a"] * 100_000}, "embedding_type"),
        ({"embedding_type": "binary", "output_dtype": "int8"}, "embedding_type"),
        ({"long_input": "mean", "truncate": False}, "truncate"),
        ({"long_input": "mean", "truncate": "START"}, "truncate"),
        ({"long_input": "mean", "normalized": False}, "normalized"),
        ({"dimensions": 64, "output_dimension": 32}, "output_dimension"),
        ({"late_chunking": True, "long_input": "mean"}, "late_chunking"),
        ({"return_multivector": True}, "return_multivector"),
        ({"modality": "image"}, "modality"),
        ({"normalized": False, "output_dtype": "int8"}, "normalized"),
        ({"input": [{"image": "x"}]}, "input"),
        ({"input": None}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": []}, "input"),
        ({"input": [""]}, "input"),
    ],
)
def test_a_wrong_field_is_named(body, param):
    error = refused(embeddings, **body)
    assert error.param == param
    assert error.code == "invalid_request"


@pytest.mark.parametrize(
    ("sent", "ids", "is_single"),
    [([1, 2, 3], [[1, 2, 3]], True), ([[1], [2, 3]], [[1], [2, 3]], False)],
)
def test_token_ids_stand_in_the_place_of_texts(sent, ids, is_single):
    found = embeddings(input=sent)
    assert (found.token_ids, found.texts, found.is_single) == (ids, [], is_single)
    assert found.count == len(ids)
    assert embeddings(input=["a", "b"]).count == 2


def test_a_missing_input_is_named():
    with pytest.raises(InvalidRequest, match="input"):
        openai.embed_task(b'{"model": "m"}', LIMITS)


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({"dimensions": "64"}, "dimensions", 64),
        ({"dimensions": 64.0}, "dimensions", 64),
        ({"output_dimension": 64}, "dimensions", 64),  # Voyage
        ({"dimensions": 64, "output_dimension": 64}, "dimensions", 64),
        ({"truncation": False}, "cut", "none"),  # Voyage
        ({"truncation": None}, "cut", "end"),
        ({"truncate": "NONE"}, "cut", "none"),
        ({"truncate": "start"}, "cut", "start"),
        ({"truncate": "false"}, "cut", "none"),
        ({"truncate": True}, "cut", "end"),
        ({"output_dtype": "int8"}, "types", ("int8",)),
        ({"output_dtype": "int8", "encoding_format": "base64"}, "base64", True),
        ({"embedding_type": "ubinary"}, "types", ("ubinary",)),  # Jina
        ({"embedding_type": ["binary"]}, "types", ("binary",)),
        ({"embedding_type": "base64"}, "base64", True),
        ({"encoding_type": "binary"}, "types", ("binary",)),  # LlamaIndex
        ({"task": "retrieval.query"}, "input_type", "query"),
        ({"task": "text-matching"}, "input_type", None),
        ({"input_type": "passage"}, "input_type", "document"),
        ({"input_type": "classification", "model": "m#query"}, "input_type", None),
        ({"normalized": False}, "normalize", False),
        ({"late_chunking": False, "return_multivector": None}, "is_joined", False),
        ({"late_chunking": "true"}, "is_joined", True),  # Jina
        ({"input": [{"text": "x"}, "y"]}, "texts", ["x", "y"]),
        ({"model": None}, "model", None),
    ],
)
def test_every_clients_own_word_is_understood(body, field, value):
    assert getattr(embeddings(**body), field) == value


def test_how_a_body_is_read_tells_calls_apart_that_are_sent_twice():
    body = b'{"model": "m", "input": "a", "inputs": "b", "texts": ["c"], "prompt": "d"}'
    tasks = [
        openai.embed_task(body, LIMITS),
        openai.embed_task(body, LIMITS, model="m"),
        tei.embed_task(body, LIMITS),
        tei.embed_task(body, LIMITS, model="m"),
        ollama.embed_task(body, LIMITS, elapsed_ns=lambda: 5),
        ollama.older_task(body, LIMITS),
    ]
    assert len({task.shape for task in tasks}) == len(tasks)
    texts = cohere.embed_task(b'{"texts": ["c"]}', LIMITS, request_id="r", version=2)
    assert texts.shape not in {task.shape for task in tasks}


def test_a_model_in_the_path_comes_before_one_in_the_body():
    found = openai.embed_task(b'{"model": "m", "input": "a"}', LIMITS, model="n").sent
    assert found.model == "n"


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "model",
                        "input",
                        "inputs",
                        "prompt",
                        "query",
                        "documents",
                        "texts",
                        "text",
                        "top_n",
                        "truncate",
                        "parameters",
                        "embedding_types",
                        "content",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_a_request_or_a_refusal_and_nothing_else(value):
    body = json.dumps(value).encode()
    for parse in (
        openai.embed_task,
        tei.embed_task,
        lambda body, limits: ollama.embed_task(body, limits, elapsed_ns=lambda: 5),
        ollama.older_task,
        lambda body, limits: cohere.embed_task(body, limits, request_id="r", version=2),
        lambda body, limits: rerank_task(body, limits, request_id="r"),
    ):
        found = outcome(parse, body)
        assert isinstance(found, EmbeddingsRequest | RerankRequest | ApplianceError)


def outcome(parse, body):
    try:
        return parse(body, LIMITS).sent
    except (InvalidRequest, TokenInputUnsupported) as error:
        return error
