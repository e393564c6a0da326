import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import ApplianceError, InvalidRequest
from appliance.core.limits import Limits
from appliance.wire.bodies import (
    EmbeddingsRequest,
    RerankRequest,
    embeddings_request,
    rerank_request,
)

LIMITS = Limits()


def embeddings(**body):
    return embeddings_request(json.dumps({"model": "m", "input": "a", **body}).encode(), LIMITS)


def rerank(**body):
    document = {"model": "m", "query": "q", "documents": ["a", "b"], **body}
    return rerank_request(json.dumps(document).encode(), LIMITS)


def refused(function, **body):
    with pytest.raises(InvalidRequest) as error:
        function(**body)
    return error.value


# -- embeddings ---------------------------------------------------------------------------------


def test_the_least_that_openai_sends_is_enough():
    expected = EmbeddingsRequest(
        model="m", texts=["a"], base64=False, dimensions=None, truncate=True, input_type=None
    )
    assert embeddings() == expected


def test_everything_that_openai_sends_is_understood_or_ignored():
    found = embeddings(
        input=["a", "b"], encoding_format="base64", dimensions=64, user="u", stream=False, extra={}
    )
    assert found == EmbeddingsRequest(
        model="m", texts=["a", "b"], base64=True, dimensions=64, truncate=True, input_type=None
    )


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
    error = refused(embeddings, model="m#passage")
    assert (error.param, "query or document" in error.message) == ("model", True)


def test_an_instruction_is_a_text_or_nothing():
    assert rerank(instruction="find answers").instruction == "find answers"
    assert rerank(instruction="").instruction is None


@pytest.mark.parametrize("field", ["encoding_format", "dimensions", "truncate", "user"])
def test_null_means_not_given(field):
    assert embeddings(**{field: None}) == embeddings()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m" * 501}, "model"),
        ({"model": None}, "model"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": -1}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"dimensions": "64"}, "dimensions"),
        ({"dimensions": 10**30}, "dimensions"),
        ({"truncate": "yes"}, "truncate"),
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
        embeddings_request(b'{"model": "m"}', LIMITS)


# -- rerank -------------------------------------------------------------------------------------


def test_the_least_that_any_client_sends_is_enough():
    assert rerank() == RerankRequest(
        model="m",
        query="q",
        documents=["a", "b"],
        top_n=None,
        return_documents=False,
        raw_scores=False,
        truncate=True,
        document_tokens_max=None,
        instruction=None,
    )


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({"top_n": 1}, "top_n", 1),  # Cohere, Jina
        ({"top_k": 1}, "top_n", 1),  # Voyage
        ({"top_n": 2, "top_k": 1}, "top_n", 2),
        ({"top_n": 0}, "top_n", None),  # vLLM: all of them
        ({"top_n": 99}, "top_n", 99),
        ({"return_documents": True}, "return_documents", True),
        ({"return_text": True}, "return_documents", True),  # TEI
        ({"raw_scores": True}, "raw_scores", True),
        ({"truncate": False}, "truncate", False),
        ({"truncation": False}, "truncate", False),
        ({"truncate": None, "truncation": None}, "truncate", True),
        ({"max_tokens_per_doc": 5}, "document_tokens_max", 5),  # Cohere
        ({"max_doc_length": 6}, "document_tokens_max", 6),  # Jina
        ({"documents": [{"text": "x"}]}, "documents", ["x"]),
        ({"documents": None, "texts": ["x"]}, "documents", ["x"]),  # TEI
        ({"documents": [{"a": "x", "b": "y"}], "rank_fields": ["b", "a"]}, "documents", ["y\nx"]),
    ],
)
def test_every_clients_own_word_is_understood(body, field, value):
    assert getattr(rerank(**body), field) == value


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"query": ["q"]}, "query"),
        ({"query": "q" * 1_000_001}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": None, "texts": []}, "texts"),
        ({"documents": "a"}, "documents"),
        ({"documents": [{"body": "x"}]}, "documents"),
        ({"documents": ["a"] * 2049}, "documents"),
        ({"top_n": -1}, "top_n"),
        ({"top_k": 10**30}, "top_k"),
        ({"top_n": True}, "top_n"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"rank_fields": "text"}, "rank_fields"),
        ({"return_documents": "yes"}, "return_documents"),
    ],
)
def test_a_wrong_field_of_a_rerank_is_named(body, param):
    assert refused(rerank, **body).param == param


def test_missing_documents_are_named():
    with pytest.raises(InvalidRequest, match="documents is missing") as error:
        rerank_request(b'{"model": "m", "query": "q"}', LIMITS)
    assert error.value.param == "documents"


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
                st.sampled_from(["model", "input", "query", "documents", "texts", "text", "top_n"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_a_request_or_a_refusal_and_nothing_else(value):
    body = json.dumps(value).encode()
    for parse in (embeddings_request, rerank_request):
        found = outcome(parse, body)
        assert isinstance(found, EmbeddingsRequest | RerankRequest | ApplianceError)


def outcome(parse, body):
    try:
        return parse(body, LIMITS)
    except InvalidRequest as error:
        return error
