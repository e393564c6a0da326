"""A cross-encoder added from a Hugging Face folder, against logits that its own code computed."""

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

import httpx2
import pytest

from tests.api import contract
from tests.server import ROOT, Server

FOLDER = ROOT / "tests/golden/tiny-cross-encoder"
ITEMS: list[dict[str, Any]] = json.loads(FOLDER.with_suffix(".json").read_text())["items"]
QUERIES = {
    query: list(items)
    for query, items in groupby(sorted(ITEMS, key=itemgetter("query")), itemgetter("query"))
}
BEFORE, DURING = "test/tiny-cross", "test/tiny-cross-late"
LIMIT = 512
CLOSE = 0.02
LONG = "word " * 2_000


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that was given the model before its start, and under another id while it runs."""
    made = Server(tmp_path_factory.mktemp("crossing") / "data")
    try:
        _add(made, BEFORE)
        _add(made.start(env={"GIGAROUTER_THREADS": "1"}), DURING)
        yield made
        assert made.stop() == 0
        assert "Traceback" not in made.log.read_text()
    finally:
        made.close()


@pytest.fixture(scope="module")
def client(crossing: Server) -> Iterator[httpx2.Client]:
    with contract.watch(crossing.client(name="crossing")) as client:
        client.headers["prefer"] = "wait=30"  # the first call loads the model
        yield client


def _add(server: Server, model: str) -> None:
    done = server.cli("models", "add", str(FOLDER), "--id", model, "--json")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert (view["id"], view["task"], view["available"]) == (model, "rerank", True)


def rerank(
    client: httpx2.Client, query: str, documents: list[str], model: str = BEFORE, **more: Any
) -> httpx2.Response:
    body = {"model": model, "query": query, "documents": documents, **more}
    return client.post("/v1/rerank", json=body)


def scores(answer: httpx2.Response) -> list[float]:
    """The scores in the order of the documents."""
    assert answer.status_code == 200, answer.text
    found = {item["index"]: item["relevance_score"] for item in answer.json()["results"]}
    return [found[index] for index in range(len(found))]


@pytest.mark.parametrize("model", [BEFORE, DURING])
@pytest.mark.parametrize("query", QUERIES)
def test_documents_of_one_call_have_the_references_logits(
    client: httpx2.Client, query: str, model: str
) -> None:
    items = QUERIES[query]
    answer = rerank(client, query, [i["document"] for i in items], model, raw_scores=True)
    assert scores(answer) == pytest.approx([i["logit"] for i in items], abs=CLOSE)
    assert answer.json()["usage"]["prompt_tokens"] == sum(i["tokens"] for i in items)
    assert Decimal(answer.headers["x-cost"]) == len(items) * Decimal("0.000008")


@pytest.mark.parametrize("number", range(len(ITEMS)))
def test_a_document_alone_has_the_references_logit_and_tokens(
    client: httpx2.Client, number: int
) -> None:
    item = ITEMS[number]
    answer = rerank(client, item["query"], [item["document"]], raw_scores=True)
    assert scores(answer) == pytest.approx([item["logit"]], abs=CLOSE)
    assert answer.json()["usage"]["prompt_tokens"] == item["tokens"]


@pytest.mark.parametrize("query", QUERIES)
def test_a_document_among_many_others_has_the_score_that_it_has_alone(
    client: httpx2.Client, query: str
) -> None:
    documents = [item["document"] for item in ITEMS]
    together = scores(rerank(client, query, documents * 3, raw_scores=True))
    alone = [scores(rerank(client, query, [each], raw_scores=True))[0] for each in documents]
    assert together == pytest.approx(alone * 3, abs=CLOSE)


@pytest.mark.parametrize("query", QUERIES)
def test_without_raw_scores_a_score_is_the_sigmoid_of_the_logit(
    client: httpx2.Client, query: str
) -> None:
    items = QUERIES[query]
    answer = rerank(client, query, [i["document"] for i in items])
    expected = [1 / (1 + math.exp(-i["logit"])) for i in items]
    assert scores(answer) == pytest.approx(expected, abs=1e-3)
    assert all(0 <= score <= 1 for score in scores(answer))


def test_a_pair_that_is_too_long_is_cut_to_the_models_limit_and_says_so(
    client: httpx2.Client,
) -> None:
    answer = rerank(client, "what is a ledger", [LONG, "short"], raw_scores=True)
    short = rerank(client, "what is a ledger", ["short"], raw_scores=True)
    tokens = LIMIT + short.json()["usage"]["prompt_tokens"]
    assert answer.json()["usage"] == {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "truncated": 1,
    }
    assert answer.headers["x-truncated"] == "1"
    assert "x-truncated" not in short.headers
    assert Decimal(answer.headers["x-cost"]) == 2 * Decimal("0.000008")


def test_a_pair_that_is_cut_has_the_score_of_one_that_just_fits(client: httpx2.Client) -> None:
    room = LIMIT - 3 - 4  # [CLS] what is a ledger [SEP] ... [SEP]
    fits = rerank(client, "what is a ledger", ["word " * room], raw_scores=True)
    assert fits.json()["usage"]["prompt_tokens"] == LIMIT
    assert "x-truncated" not in fits.headers
    cut = rerank(client, "what is a ledger", [LONG], raw_scores=True)
    assert scores(cut) == pytest.approx(scores(fits), abs=1e-4)


def test_two_long_texts_are_cut_to_equal_shares(client: httpx2.Client) -> None:
    # 509 tokens between them: the reference gives 254 to the query and 255 to the document.
    fits = rerank(client, "word " * 254, ["word " * 255], raw_scores=True)
    assert fits.json()["usage"]["prompt_tokens"] == LIMIT
    assert "x-truncated" not in fits.headers
    cut = rerank(client, LONG, [LONG], raw_scores=True)
    assert cut.json()["usage"]["prompt_tokens"] == LIMIT
    assert scores(cut) == pytest.approx(scores(fits), abs=1e-4)


@pytest.mark.parametrize("field", ["truncate", "truncation"])
def test_a_pair_that_is_too_long_is_refused_when_cutting_is_forbidden(
    client: httpx2.Client, field: str
) -> None:
    answer = rerank(client, "what is a ledger", ["short", LONG], **{field: False})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("input_too_long", "documents")
    assert "documents[1] has 2007 tokens" in error["message"]
    assert "512" in error["message"]


def test_a_document_may_be_given_fewer_tokens_than_fit(client: httpx2.Client) -> None:
    cut = rerank(client, "a", ["word " * 90], raw_scores=True, max_tokens_per_doc=10)
    fits = rerank(client, "a", ["word " * 10], raw_scores=True)
    assert scores(cut) == pytest.approx(scores(fits), abs=1e-4)
    assert cut.json()["usage"]["prompt_tokens"] == fits.json()["usage"]["prompt_tokens"] == 14


def test_an_added_model_is_listed_with_what_it_does_and_costs(client: httpx2.Client) -> None:
    listed = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    for name in (BEFORE, DURING):
        assert listed[name]["task"] == "rerank"
        assert listed[name]["pricing"] == {
            "realtime": 0.008,
            "batch": 0.004,
            "unit": "1k documents",
        }
