"""The starter model, through HTTP, against vectors that its own authors' code computed."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.api import contract
from tests.server import EMBED, RERANK, ROOT, Server

ALL = json.loads((ROOT / "tests/golden/all-minilm-l6-v2.json").read_text())["items"]
PUBLISHED = 256
"""Tokens that the model's publisher gives a sequence; the reference was computed with all 512."""
ITEMS = [item for item in ALL if item["tokens"] <= PUBLISHED]
OVERLAY = """\
schema = 1
[[model]]
id = "sentence-transformers/all-MiniLM-L6-v2"
max_input_tokens = 512
"""
TEXTS: list[str] = [item["text"] for item in ITEMS]
TOKENS: list[int] = [item["tokens"] for item in ITEMS]
VECTORS = np.array([item["embedding"] for item in ITEMS], np.float64)
COSINES = (VECTORS @ VECTORS.T) / np.outer(
    np.linalg.norm(VECTORS, axis=1), np.linalg.norm(VECTORS, axis=1)
)
SHORT = [text for text, tokens in zip(TEXTS, TOKENS, strict=True) if tokens < 100]
"""All but the one that takes as long to compute as the others together."""
NUMBERS = [TEXTS.index(text) for text in SHORT]
CLOSE = 0.999
SAME = 0.9999
SAME_SCORE = 0.001
"""What one text's score varies by with its company: the engine rounds other shapes otherwise."""
CREDITS_A_TOKEN = Decimal("0.000000008")
CREDITS_A_DOCUMENT = Decimal("0.000008")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx2.Client]:
    with contract.watch(server.client(name="golden")) as client:
        yield client


def embed(client: httpx2.Client, texts: str | list[str], **more: Any) -> httpx2.Response:
    answer = client.post("/v1/embeddings", json={"model": EMBED, "input": texts, **more})
    assert answer.status_code == 200, answer.text
    return answer


def vectors(answer: httpx2.Response) -> np.ndarray:
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    rows = [item["embedding"] for item in data]
    return np.array([contract.floats(row) if isinstance(row, str) else row for row in rows])


def rerank(
    client: httpx2.Client, query: str, documents: list[Any], path: str = "/v1/rerank", **more: Any
) -> httpx2.Response:
    body = {"model": RERANK, "query": query, "documents": documents, **more}
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def scores(answer: httpx2.Response) -> dict[int, float]:
    return {item["index"]: item["relevance_score"] for item in answer.json()["results"]}


def order(answer: httpx2.Response) -> list[int]:
    return [item["index"] for item in answer.json()["results"]]


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The cosine of each row of one with the same row of the other."""
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / lengths


# -- embeddings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(ITEMS)))
def test_a_text_alone_has_the_references_vector_tokens_and_price(
    client: httpx2.Client, number: int
) -> None:
    answer = embed(client, TEXTS[number])
    assert cosine(vectors(answer)[0], VECTORS[number]) >= CLOSE
    usage = answer.json()["usage"]
    assert usage == {"prompt_tokens": TOKENS[number], "total_tokens": TOKENS[number]}
    assert Decimal(answer.headers["x-cost"]) == TOKENS[number] * CREDITS_A_TOKEN
    assert "e" not in answer.headers["x-cost"].lower()


def test_an_operator_may_give_it_all_the_tokens_that_its_file_takes(make_server):
    long = [item for item in ALL if item["tokens"] > PUBLISHED]
    assert long
    made: Server = make_server()
    made.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (made.data_dir / "models.toml").write_text(OVERLAY)
    made.start()
    with made.client() as client:
        assert client.get(f"/v1/models/{EMBED}").json()["max_input_tokens"] == 512
        for item in long:
            answer = embed(client, item["text"])
            assert answer.json()["usage"]["prompt_tokens"] == item["tokens"]
            reference = np.array(item["embedding"], np.float64)
            assert cosine(vectors(answer)[0], reference) >= CLOSE


def test_all_texts_in_one_call_have_the_references_vectors_tokens_and_price(
    client: httpx2.Client,
) -> None:
    answer = embed(client, TEXTS)
    assert cosine(vectors(answer), VECTORS).min() >= CLOSE
    assert answer.json()["usage"]["prompt_tokens"] == sum(TOKENS)
    assert Decimal(answer.headers["x-cost"]) == sum(TOKENS) * CREDITS_A_TOKEN


def test_sixteen_mixed_calls_at_one_time_answer_what_each_answers_alone(
    client: httpx2.Client,
) -> None:
    alone = np.concatenate([vectors(embed(client, text)) for text in TEXTS])
    reranked = [scores(rerank(client, text, SHORT, raw_scores=True)) for text in SHORT]

    def call(number: int) -> None:
        if number % 3 == 2:
            query = number % len(SHORT)
            answer = rerank(client, SHORT[query], SHORT, raw_scores=True)
            assert scores(answer) == pytest.approx(reranked[query], abs=SAME_SCORE)
            tokens = TOKENS[NUMBERS[query]] + sum(TOKENS[pick] for pick in NUMBERS)
            assert answer.json()["usage"]["prompt_tokens"] == tokens
            return
        first = number % len(TEXTS)
        picks = [(first + step) % len(TEXTS) for step in range(1 + number % 5)]
        answer = embed(client, [TEXTS[pick] for pick in picks])
        got = vectors(answer)
        assert cosine(got, VECTORS[picks]).min() >= CLOSE
        assert cosine(got, alone[picks]).min() >= SAME
        tokens = sum(TOKENS[pick] for pick in picks)
        assert answer.json()["usage"]["prompt_tokens"] == tokens
        assert Decimal(answer.headers["x-cost"]) == tokens * CREDITS_A_TOKEN

    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(call, range(32)))) == 32


def test_a_vector_has_length_one_and_384_numbers(client: httpx2.Client) -> None:
    got = vectors(embed(client, TEXTS))
    assert got.shape == (len(TEXTS), 384)
    assert np.linalg.norm(got, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_float_and_base64_are_the_same_vector_to_the_last_bit(client: httpx2.Client) -> None:
    as_float = embed(client, TEXTS[0], encoding_format="float")
    as_base64 = embed(client, TEXTS[0], encoding_format="base64")
    assert isinstance(as_float.json()["data"][0]["embedding"], list)
    assert isinstance(as_base64.json()["data"][0]["embedding"], str)
    assert np.array_equal(
        vectors(as_float).astype(np.float32), vectors(as_base64).astype(np.float32)
    )


def test_vectors_are_numbers_when_nothing_is_said_of_the_encoding(client: httpx2.Client) -> None:
    assert isinstance(embed(client, "a").json()["data"][0]["embedding"], list)


def test_the_models_own_dimensions_are_available(client: httpx2.Client) -> None:
    asked = vectors(embed(client, TEXTS[0], dimensions=384))
    assert np.array_equal(asked, vectors(embed(client, TEXTS[0])))


@pytest.mark.parametrize("dimensions", [128, 383, 385, 1_000_000])
def test_dimensions_the_model_was_not_trained_for_are_refused(
    client: httpx2.Client, dimensions: int
) -> None:
    body = {"model": EMBED, "input": "a", "dimensions": dimensions}
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_dimensions", "dimensions")
    assert "384" in error["message"]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", contract.EMBEDDINGS_PATHS)
def test_every_embeddings_path_embeds(client: httpx2.Client, path: str, slash: str) -> None:
    answer = client.post(path + slash, json={"model": EMBED, "input": TEXTS[0]})
    assert answer.status_code == 200
    assert cosine(vectors(answer)[0], VECTORS[0]) >= CLOSE


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "All-MiniLM-L6-v2", EMBED.upper()])
def test_an_alias_in_any_letter_case_is_the_same_model(client: httpx2.Client, name: str) -> None:
    answer = client.post("/v1/embeddings", json={"model": name, "input": TEXTS[0]})
    assert answer.json()["model"] == EMBED
    assert cosine(vectors(answer)[0], VECTORS[0]) >= CLOSE


def test_the_same_text_twice_in_a_call_has_one_vector(client: httpx2.Client) -> None:
    got = vectors(embed(client, [TEXTS[1], TEXTS[2], TEXTS[1]]))
    assert cosine(got[0], got[2]) >= SAME


# -- rerank -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_scores_are_the_references_cosines_and_never_below_zero(
    client: httpx2.Client, number: int
) -> None:
    answer = rerank(client, TEXTS[number], SHORT)
    expected = dict(enumerate(np.clip(COSINES[number, NUMBERS], 0, 1)))
    assert scores(answer) == pytest.approx(expected, abs=0.002)
    assert min(scores(answer).values()) >= 0
    assert Decimal(answer.headers["x-cost"]) == len(SHORT) * CREDITS_A_DOCUMENT


def test_raw_scores_show_a_negative_cosine_that_is_zero_otherwise(client: httpx2.Client) -> None:
    query, document = np.unravel_index(COSINES.argmin(), COSINES.shape)
    assert COSINES[query, document] < -0.01
    texts = TEXTS[query], [TEXTS[document]]
    raw = scores(rerank(client, *texts, raw_scores=True))
    assert raw[0] == pytest.approx(COSINES[query, document], abs=0.002)
    assert scores(rerank(client, *texts)) == {0: 0.0}
    assert scores(rerank(client, *texts, raw_scores=False)) == {0: 0.0}


def test_results_are_best_first_and_ties_in_the_order_of_the_documents(
    client: httpx2.Client,
) -> None:
    query, zero = np.unravel_index(COSINES.argmin(), COSINES.shape)
    documents = [TEXTS[zero], *SHORT, TEXTS[zero]]  # at least two scores of exactly 0
    results = rerank(client, TEXTS[query], documents).json()["results"]
    assert sorted(item["index"] for item in results) == list(range(len(documents)))
    keys = [(-item["relevance_score"], item["index"]) for item in results]
    assert keys == sorted(keys)
    assert sum(item["relevance_score"] == 0 for item in results) >= 2


def test_documents_may_be_objects_with_a_text(client: httpx2.Client) -> None:
    documents: list[Any] = [{"text": text, "id": 7, "meta": {"a": [1]}} for text in SHORT]
    documents[3] = SHORT[3]
    assert scores(rerank(client, TEXTS[1], documents)) == pytest.approx(
        scores(rerank(client, TEXTS[1], SHORT)), abs=SAME_SCORE
    )


def test_rank_fields_choose_what_of_an_object_is_read(client: httpx2.Client) -> None:
    documents = [{"title": TEXTS[2], "body": TEXTS[3], "text": "noise"}, {"title": TEXTS[4]}]
    got = scores(rerank(client, TEXTS[1], documents, rank_fields=["title", "body"]))
    joined = scores(rerank(client, TEXTS[1], [f"{TEXTS[2]}\n{TEXTS[3]}", TEXTS[4]]))
    assert got == pytest.approx(joined, abs=SAME_SCORE)


@pytest.mark.parametrize("field", ["top_n", "top_k"])
@pytest.mark.parametrize(("value", "shown"), [(1, 1), (3, 3), (0, 6), (6, 6), (500, 6), (None, 6)])
def test_top_n_and_top_k_cut_the_list_and_zero_is_all_of_it(
    client: httpx2.Client, field: str, value: int | None, shown: int
) -> None:
    whole = order(rerank(client, TEXTS[1], SHORT[:6]))
    answer = rerank(client, TEXTS[1], SHORT[:6], **{field: value})
    assert order(answer) == whole[:shown]
    # All of them were scored, whatever is shown.
    assert Decimal(answer.headers["x-cost"]) == 6 * CREDITS_A_DOCUMENT


@pytest.mark.parametrize("field", ["return_documents", "return_text"])
def test_documents_come_back_when_asked_for_and_only_then(
    client: httpx2.Client, field: str
) -> None:
    asked, plain = (
        rerank(client, TEXTS[1], TEXTS[:4], **{field: value}).json()["results"]
        for value in (True, False)
    )
    assert len(asked) == len(plain) == 4
    for item in asked:
        assert item["document"] == {"text": TEXTS[item["index"]]}
    for item in plain:
        assert set(item) == {"index", "relevance_score"}


def test_texts_are_documents_by_teis_name(client: httpx2.Client) -> None:
    body = {"model": RERANK, "query": TEXTS[1], "texts": TEXTS[:4]}
    answer = client.post("/rerank", json=body)
    assert scores(answer) == pytest.approx(
        scores(rerank(client, TEXTS[1], TEXTS[:4])), abs=SAME_SCORE
    )


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", contract.RERANK_PATHS)
def test_every_rerank_path_ranks(client: httpx2.Client, path: str, slash: str) -> None:
    answer = rerank(client, TEXTS[1], TEXTS[:4], path=path + slash)
    assert scores(answer) == pytest.approx(dict(enumerate(COSINES[1, :4])), abs=0.002)
    # Cohere's client wants to know what was billed, in its own units.
    assert answer.json()["meta"]["billed_units"] == {"search_units": 1}


def test_query_and_documents_tokens_are_the_references(client: httpx2.Client) -> None:
    usage = rerank(client, TEXTS[7], TEXTS).json()["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] == TOKENS[7] + sum(TOKENS)
