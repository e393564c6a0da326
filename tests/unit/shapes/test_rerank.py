import json

import pytest

from appliance.catalog.catalog import Catalog, load, shipped_path
from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.shapes.rerank import rerank_task
from appliance.tasks.plan import Plan
from appliance.tasks.rerank import Ranked
from appliance.wire.questions import RerankRequest
from tests.server import RERANK

LIMITS = Limits()


def body_of(**body):
    return json.dumps({"model": "m", "query": "q", "documents": ["a", "b"], **body}).encode()


def rerank(**body):
    return rerank_task(body_of(**body), LIMITS, request_id="r").sent


def refused(function, **body):
    with pytest.raises(InvalidRequest) as error:
        function(**body)
    return error.value


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Catalog:
    return load(shipped_path(), None, tmp_path_factory.mktemp("models"))


def answer(catalog, *, is_tei=False, **body):
    task = rerank_task(body_of(**body), LIMITS, request_id="r", is_tei=is_tei)
    found = Ranked(task.sent, catalog.find(RERANK), Plan([], 9, 0), 2, [(1, 0.75), (0, 0.25)])
    return json.loads(task.write(found))


def test_an_instruction_is_a_text_or_nothing():
    assert rerank(instruction="find answers").instruction == "find answers"
    assert rerank(instruction="").instruction is None


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
        ({"top_n": 2, "top_k": 2}, "top_n", 2),
        ({"top_n": 0}, "top_n", None),  # vLLM: all of them
        ({"top_n": 99}, "top_n", 99),
        ({"return_documents": True}, "return_documents", True),
        ({"return_text": True}, "return_documents", True),  # TEI
        ({"raw_scores": True}, "raw_scores", True),
        ({"truncate": False}, "truncate", False),
        ({"truncation": False}, "truncate", False),
        ({"truncate": None, "truncation": None}, "truncate", True),
        ({"truncate": "NONE"}, "truncate", False),
        ({"truncation_direction": "Right"}, "truncate", True),  # TEI
        ({"top_n": "1"}, "top_n", 1),  # RAGFlow
        ({"top_n": 1.0}, "top_n", 1),
        ({"return_documents": "true"}, "return_documents", True),
        ({"model": None}, "model", None),
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
        ({"top_n": "some"}, "top_n"),
        ({"truncate": "START"}, "truncate"),
        ({"top_n": 2, "top_k": 1}, "top_k"),
        ({"max_tokens_per_doc": 2, "max_doc_length": 1}, "max_doc_length"),
        ({"texts": ["c"]}, "texts"),
        ({"rank_fields": ["a"] * 100_000}, "rank_fields"),
        ({"truncation_direction": "Left"}, "truncation_direction"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"rank_fields": "text"}, "rank_fields"),
        ({"return_documents": "yes"}, "return_documents"),
    ],
)
def test_a_wrong_field_of_a_rerank_is_named(body, param):
    assert refused(rerank, **body).param == param


def test_missing_documents_are_named():
    with pytest.raises(InvalidRequest, match="documents is missing") as error:
        rerank_task(b'{"model": "m", "query": "q"}', LIMITS, request_id="r")
    assert error.value.param == "documents"


def test_one_answer_is_cohere_s_jina_s_and_voyage_s(catalog):
    found = answer(catalog, return_documents=True)
    assert found == {
        "id": "r",
        "object": "list",
        "model": RERANK,
        "results": [
            {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.25, "document": {"text": "a"}},
        ],
        "data": [
            {"index": 1, "relevance_score": 0.75, "document": "b"},
            {"index": 0, "relevance_score": 0.25, "document": "a"},
        ],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
        "meta": {
            "api_version": {"version": "2"},
            "tokens": {"input_tokens": 9, "output_tokens": 0},
            "billed_units": {"search_units": 1},
        },
    }
    bare = answer(catalog)
    assert (
        bare["data"]
        == bare["results"]
        == [
            {"index": 1, "relevance_score": 0.75},
            {"index": 0, "relevance_score": 0.25},
        ]
    )


@pytest.mark.parametrize(
    ("is_tei", "body"),
    [(True, {}), (False, {"model": None, "documents": None, "texts": ["a", "b"]})],
)
def test_tei_s_answer_is_a_bare_list(catalog, is_tei, body):
    expected = [{"index": 1, "score": 0.75}, {"index": 0, "score": 0.25}]
    assert answer(catalog, is_tei=is_tei, **body) == expected
    with_texts = answer(catalog, is_tei=is_tei, **body, return_text=True)
    assert [each["text"] for each in with_texts] == ["b", "a"]


def test_texts_with_a_model_are_not_tei_s(catalog):
    assert "results" in answer(catalog, documents=None, texts=["a", "b"])
