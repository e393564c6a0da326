"""Cohere's own SDK, both of its clients, against a really started server.

OpenAI's is in `tests/api/test_clients.py`; the others are tried by `python -m tests.clients`.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import cohere
import numpy as np
import pytest
from cohere.errors import BadRequestError, NotFoundError, UnauthorizedError

from tests.server import EMBED, RERANK, ROOT, Server

# It merges answers by what pydantic no longer recommends.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")
GOLDEN = json.loads((ROOT / "tests/golden/all-minilm-l6-v2.json").read_text())["items"][:4]
TEXTS = [item["text"] for item in GOLDEN]
VECTORS = np.array([item["embedding"] for item in GOLDEN])
QUERY = "How do I reset my password?"
DOCUMENTS = ["Invoices are sent monthly.", "Password reset: open Settings.", "Lunch is at two."]
KINDS = ["float", "int8", "uint8", "binary", "ubinary", "base64"]


@pytest.fixture(scope="module")
def one(server: Server) -> Iterator[cohere.Client]:
    with cohere.Client(str(server.mint(name="cohere")["key"]), base_url=server.url) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def two(server: Server) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(str(server.mint(name="cohere 2")["key"]), base_url=server.url) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def ranking(server: Server) -> list[tuple[int, float]]:
    with server.client() as client:
        body = {"model": RERANK, "query": QUERY, "documents": DOCUMENTS}
        results = client.post("/v1/rerank", json=body).json()["results"]
    return [(each["index"], pytest.approx(each["relevance_score"], abs=1e-3)) for each in results]


def pairs(answer: Any) -> list[tuple[int, float]]:
    return [(each.index, each.relevance_score) for each in answer.results]


def cosines(got: Any) -> np.ndarray:
    vectors = np.asarray(got, float)
    assert vectors.shape == VECTORS.shape
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(VECTORS, axis=1)
    return np.sum(vectors * VECTORS, axis=1) / lengths


def test_the_first_client_embeds_floats(one):
    got = one.embed(texts=TEXTS, model=EMBED, input_type="search_document")
    assert got.response_type == "embeddings_floats"
    assert cosines(got.embeddings).min() >= 0.999
    assert got.texts == TEXTS
    assert got.meta.billed_units.input_tokens == sum(item["tokens"] for item in GOLDEN)


def test_the_first_client_merges_several_requests_in_their_order(one):
    got = one.embed(texts=TEXTS * 30, model=EMBED, input_type="search_document")
    assert len(got.embeddings) == 120
    assert cosines(got.embeddings[-4:]).min() >= 0.999


@pytest.mark.parametrize("client", ["one", "two"])
def test_both_clients_embed_every_kind_of_number(client, request):
    sdk = request.getfixturevalue(client)
    got = sdk.embed(
        texts=TEXTS, model=EMBED, input_type="search_document", embedding_types=KINDS
    ).embeddings
    assert cosines(got.float_).min() >= 0.999
    decoded = [np.frombuffer(base64.b64decode(each), "<f4") for each in got.base64]
    assert np.array_equal(np.array(decoded), np.array(got.float_, dtype="<f4"))
    assert cosines(got.int8).min() >= 0.99
    assert np.array_equal(np.array(got.uint8), np.array(got.int8) + 128)
    bits = np.packbits(np.array(got.float_) > 0, axis=-1)
    assert np.array_equal(got.ubinary, bits)
    assert np.array_equal(got.binary, bits.astype(int) - 128)


@pytest.mark.parametrize("base", ["", "/v1"])
def test_the_second_client_reranks_with_and_without_v1_in_its_base_url(server, ranking, base):
    key = str(server.mint()["key"])
    with cohere.ClientV2(key, base_url=server.url + base) as sdk:
        got = sdk.rerank(model=RERANK, query=QUERY, documents=DOCUMENTS, top_n=2)
    assert pairs(got) == ranking[:2]
    assert got.meta.billed_units.search_units == 1


def test_the_first_client_reranks_objects_and_returns_documents(one, ranking):
    documents = [{"text": text} for text in DOCUMENTS]
    got = one.rerank(model=RERANK, query=QUERY, documents=documents, return_documents=True)
    assert pairs(got) == ranking
    assert [each.document.text for each in got.results] == [DOCUMENTS[at] for at, _ in pairs(got)]


def test_what_is_refused_is_the_sdks_own_error_in_our_words(server, one, two):
    wrong = cohere.ClientV2("gr-" + "0" * 38, base_url=server.url)
    with wrong, pytest.raises(UnauthorizedError, match="key"):
        wrong.rerank(model=RERANK, query=QUERY, documents=DOCUMENTS)
    with pytest.raises(NotFoundError, match="no-such-model"):
        one.embed(texts=TEXTS, model="no-such-model", input_type="search_query")
    with pytest.raises(BadRequestError, match="token"):
        two.embed(texts=["word " * 600], model=EMBED, input_type="search_query", truncate="NONE")
    with pytest.raises(BadRequestError, match="384"):
        two.embed(texts=TEXTS, model=EMBED, input_type="search_query", output_dimension=64)
