"""Shapes: the same vectors and scores in the words of every other API, over HTTP."""

import base64
from decimal import Decimal

import httpx2
import numpy as np
import pytest

from appliance.engine import vectors
from tests.server import EMBED, RERANK, Server

TEXTS = ["reset your password in the settings", "invoices are sent monthly"]


@pytest.fixture(scope="module")
def client(server: Server):
    key = str(server.mint(name="shapes")["key"])
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def unit(client) -> np.ndarray:
    """The vectors of TEXTS as OpenAI's shape has them."""
    data = posted(client, "/v1/embeddings", model=EMBED, input=TEXTS)["data"]
    return np.array([each["embedding"] for each in data], np.float32)


def posted(client: httpx2.Client, path: str, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(client: httpx2.Client, path: str, status: int, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


NAME, OWNED = "all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("path", "body", "read"),
    [
        ("/v1/embed", {"model": EMBED, "texts": TEXTS}, lambda a: a["embeddings"]),
        ("/v2/embed", {"model": EMBED, "texts": TEXTS}, lambda a: a["embeddings"]["float"]),
        ("/v1/v2/embed", {"texts": TEXTS}, lambda a: a["embeddings"]["float"]),
        ("/embed", {"texts": TEXTS}, lambda a: a["embeddings"]["float"]),
        ("/embed", {"inputs": TEXTS}, lambda a: a),
        ("/", {"inputs": TEXTS}, lambda a: a),
        (f"/tei/{NAME}", {"inputs": TEXTS}, lambda a: a),
        (f"/tei/{OWNED}", {"inputs": TEXTS}, lambda a: a),
        (f"/tei/{NAME}/embed", {"inputs": TEXTS}, lambda a: a),
        (f"/tei/{OWNED}/embed/", {"inputs": TEXTS}, lambda a: a),
        ("/api/embed", {"model": NAME + ":latest", "input": TEXTS}, lambda a: a["embeddings"]),
        (
            f"/openai/deployments/{NAME}/embeddings?api-version=1",
            {"input": TEXTS},
            lambda a: [e["embedding"] for e in a["data"]],
        ),
        (
            f"/openai/deployments/{OWNED}/embeddings",
            {"input": TEXTS, "model": "x"},
            lambda a: [e["embedding"] for e in a["data"]],
        ),
        ("/openai/v1/embeddings/", {"input": TEXTS}, lambda a: [e["embedding"] for e in a["data"]]),
    ],
)
def test_every_shape_has_the_same_vectors(client, unit, path, body, read):
    np.testing.assert_allclose(np.array(read(posted(client, path, **body))), unit, atol=1e-6)


def test_ollama_s_older_route_has_one_vector(client, unit):
    found = posted(client, "/api/embeddings", model=NAME, prompt=TEXTS[1])["embedding"]
    np.testing.assert_allclose(found, unit[1], atol=1e-4)


@pytest.mark.parametrize("kind", ["float", "float16", "int8", "uint8", "binary", "ubinary"])
def test_every_kind_of_numbers_is_what_numpy_makes_of_the_vector(client, unit, kind):
    expected = vectors.in_type(unit, kind)
    body = {"model": EMBED, "input": TEXTS, "output_dtype": kind}
    found = [each["embedding"] for each in posted(client, "/v1/embeddings", **body)["data"]]
    np.testing.assert_allclose(
        np.array(found, np.float64),
        expected.astype(np.float64),
        atol=1e-4 if "float" in kind else 1,
    )
    coded = posted(client, "/v1/embeddings", **body, encoding_format="base64")["data"]
    decoded = [np.frombuffer(base64.b64decode(each["embedding"]), expected.dtype) for each in coded]
    np.testing.assert_array_equal(
        np.array(decoded, np.float64), np.array(found, expected.dtype).astype(np.float64)
    )


def test_cohere_answers_several_kinds_at_once_for_one_price(client, unit):
    one = client.post("/v2/embed", json={"texts": TEXTS})
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    all_kinds = client.post("/v2/embed", json={"texts": TEXTS, "embedding_types": kinds})
    assert all_kinds.headers["x-cost"] == one.headers["x-cost"]
    assert Decimal(one.headers["x-cost"]) > 0
    found = all_kinds.json()
    assert list(found["embeddings"]) == kinds
    assert found["texts"] == TEXTS
    tokens = posted(client, "/v1/embeddings", model=EMBED, input=TEXTS)["usage"]["total_tokens"]
    assert found["meta"]["billed_units"] == {"input_tokens": tokens}


def test_tei_gives_raw_vectors_where_they_are_asked_for(client, unit):
    raw = np.array(posted(client, "/embed", inputs=TEXTS, normalize=False))
    lengths = np.linalg.norm(raw, axis=1)
    assert (lengths > 1.5).all()
    np.testing.assert_allclose(raw / lengths[:, None], unit, atol=1e-5)


def test_a_text_may_lose_its_beginning(client):
    long = "alpha " * 400 + "beta gamma delta"
    kept = posted(client, "/v1/embeddings", model=EMBED, input=long, truncate="START")
    end = " ".join(long.split()[-254:])
    same = posted(client, "/v1/embeddings", model=EMBED, input=end)
    assert kept["usage"] == {**same["usage"], "truncated": 1}
    np.testing.assert_allclose(
        kept["data"][0]["embedding"], same["data"][0]["embedding"], atol=1e-5
    )


def test_a_long_text_may_be_the_mean_of_its_windows(client):
    words = [f"word{n % 90}" for n in range(330)]
    body = {"model": EMBED, "input": [" ".join(words), "short"], "long_input": "mean"}
    found = posted(client, "/v1/embeddings", **body)
    assert "truncated" not in found["usage"]
    ids = posted(
        client, "/v1/tokenize", model=EMBED, input=" ".join(words), add_special_tokens=False
    )["tokens"]
    count = -(-len(ids) // 254)
    assert found["usage"]["windows"] == count + 1 > 2
    assert found["usage"]["total_tokens"] == len(ids) + 2 * count + 3
    parts = np.array_split(np.array(ids), count)
    texts = [
        posted(client, "/v1/detokenize", model=EMBED, tokens=part.tolist())["text"]
        for part in parts
    ]
    rows = [
        each["embedding"]
        for each in posted(client, "/v1/embeddings", model=EMBED, input=texts)["data"]
    ]
    mean = np.average(np.array(rows), axis=0, weights=[len(part) + 2 for part in parts])
    assert mean @ found["data"][0]["embedding"] / np.linalg.norm(mean) > 0.99
    short = posted(client, "/v1/embeddings", model=EMBED, input="short")["data"][0]["embedding"]
    np.testing.assert_allclose(found["data"][1]["embedding"], short, atol=1e-4)


def test_rerank_is_the_same_in_every_shape(client):
    query = "how do I reset my password?"
    ours = posted(
        client, "/v1/rerank", model=RERANK, query=query, documents=TEXTS, return_documents=True
    )
    pairs = [(each["index"], each["relevance_score"]) for each in ours["results"]]
    assert [(each["index"], each["relevance_score"]) for each in ours["data"]] == pairs
    assert ours["data"][0]["document"] == ours["results"][0]["document"]["text"] == TEXTS[0]
    assert ours["meta"]["billed_units"] == {"search_units": 1}
    for path, body in (
        ("/rerank", {}),
        ("/tei/gigarouter/starter-rerank/rerank", {"model": "ignored"}),
    ):
        bare = posted(client, path, query=query, texts=TEXTS, return_text="true", **body)
        assert [each["index"] for each in bare] == [index for index, _ in pairs]
        assert [each["score"] for each in bare] == pytest.approx([score for _, score in pairs])
        assert bare[0]["text"] == TEXTS[0]


def test_texts_that_are_one_are_read_in_one_pass_and_billed_as_one(client, unit):
    answer = posted(client, "/v1/embeddings", model=EMBED, input=TEXTS, late_chunking=True)
    apart = posted(client, "/v1/embeddings", model=EMBED, input=TEXTS)
    found = np.array([each["embedding"] for each in answer["data"]], np.float32)
    assert [each["index"] for each in answer["data"]] == [0, 1]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert not np.allclose(found, unit, atol=1e-3)
    assert answer["usage"]["total_tokens"] == apart["usage"]["total_tokens"] - 2
    alone = posted(client, "/v1/embeddings", model=EMBED, input=TEXTS[0], late_chunking=True)
    np.testing.assert_allclose(alone["data"][0]["embedding"], unit[0], atol=1e-4)


def test_texts_that_are_one_must_fit_and_have_tokens(client):
    long = ["word " * 200, "word " * 200]
    assert posted(client, "/v1/embeddings", model=EMBED, input=long)["usage"]["total_tokens"] > 256
    refused = refusal(client, "/v1/embeddings", 400, model=EMBED, input=long, late_chunking=True)
    assert refused["error"]["code"] == "input_too_long"
    blank = ["a", " ", "b"]
    refused = refusal(client, "/v1/embeddings", 400, model=EMBED, input=blank, late_chunking=True)
    assert refused["error"]["param"] == "input"
    many = ["a"] * 2048
    refused = refusal(client, "/v1/embeddings", 400, model=EMBED, input=many, late_chunking=True)
    assert refused["error"]["code"] == "input_too_long"


def test_what_would_change_the_answer_is_refused_and_costs_nothing(client):
    before = client.get("/account").json()["balance"]
    for path, field, body in (
        (
            "/v1/embeddings",
            "late_chunking",
            {"input": TEXTS, "late_chunking": True, "long_input": "mean"},
        ),
        ("/v1/embeddings", "output_dtype", {"input": TEXTS, "output_dtype": "int4"}),
        ("/v2/embed", "images", {"images": ["data:image/png;base64,"]}),
        ("/v2/embed", "embedding_types", {"texts": TEXTS, "embedding_types": ["int4"]}),
        (
            "/rerank",
            "truncation_direction",
            {"query": "q", "texts": TEXTS, "truncation_direction": "Left"},
        ),
    ):
        refused = refusal(client, path, 400, model=EMBED, **body)
        assert (refused["error"]["param"], refused["message"]) == (field, refused["detail"])
    assert client.get("/account").json()["balance"] == before


def test_an_unknown_model_is_told_as_each_client_prints_it(client):
    ours = refusal(client, "/v2/embed", 404, model="nobody", texts=TEXTS)
    assert ours["message"] == ours["detail"] == ours["error"]["message"]
    ollama = refusal(client, "/api/embed", 404, model="nobody", input="a")
    assert ollama == {"error": ours["message"], "code": "model_not_found"}
    tei = refusal(client, "/tei/nobody/embed", 404, inputs="a")
    assert (tei["error"], tei["code"]) == (ours["message"], "model_not_found")
    assert tei["error_type"] == "not_found_error"


def test_the_lists_of_models_are_there_for_each_reader(client):
    ours = client.get("/models/").json()
    assert ours == client.get("/v1/models").json()
    assert {each["name"]: each["endpoints"] for each in ours["models"]}[EMBED] == ["embed"]
    tags = client.get("/api/tags").json()["models"]
    assert {EMBED, RERANK, NAME, NAME + ":latest"} <= {each["name"] for each in tags}
    hello = client.get("/", headers={"Authorization": ""})
    assert (hello.status_code, hello.text) == (200, "gigarouter is running")
    one = client.get(f"/models/{NAME}").json()
    assert (one["id"], one["name"], one["endpoints"]) == (EMBED, EMBED, ["embed"])
    ranked = client.get("/v1/models?endpoint=rerank").json()
    assert {each["name"] for each in ranked["models"]} == {
        each["id"] for each in ours["data"] if each["task"] == "rerank"
    }
    assert ranked["data"] == ours["data"]
    encoded = f"/openai/deployments/{OWNED.replace('/', '%2F')}/embeddings"
    assert posted(client, encoded, input="a")["model"] == EMBED
    assert client.get("/info").json()["model_id"] == EMBED
    assert client.get(f"/tei/{RERANK}/info").json()["model_type"] == {"reranker": {}}
    assert client.get(f"/tei/{NAME}/health").status_code == 200
    assert client.get("/api/version").json()["version"]


def test_one_body_with_the_fields_of_two_shapes_is_not_answered_twice_for_one_price(client):
    body = {"model": EMBED, "input": "a", "texts": ["many words " * 50] * 8, "prompt": "a"}
    headers = {"Idempotency-Key": "two shapes".replace(" ", "-")}
    first = client.post("/v1/embeddings", json=body, headers=headers)
    assert first.status_code == 200
    for path in ("/v2/embed", "/api/embeddings", "/api/embed"):
        other = client.post(path, json=body, headers=headers)
        assert other.status_code == 422, other.text
    again = client.post("/embeddings", json=body, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"


def test_a_call_that_names_a_model_by_its_path_is_not_repeated_for_another(client):
    headers = {"Idempotency-Key": "one"}
    first = client.post(f"/tei/{NAME}/embed", json={"inputs": "a"}, headers=headers)
    again = client.post(f"/tei/{NAME}/embed", json={"inputs": "a"}, headers=headers)
    other = client.post("/tei/nobody/embed", json={"inputs": "a"}, headers=headers)
    assert (first.status_code, again.headers.get("idempotent-replayed")) == (200, "true")
    assert other.status_code == 404


@pytest.mark.parametrize("path", ["/similarity", f"/tei/{NAME}/similarity", f"/tei/{OWNED}", "/"])
def test_tei_says_how_near_sentences_are_for_the_price_of_their_vectors(client, unit, path):
    inputs = {"source_sentence": TEXTS[0], "sentences": [TEXTS[1], TEXTS[0]]}
    answer = client.post(path, json={"inputs": inputs, "parameters": {"truncate": True}})
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json(), [unit[0] @ unit[1], 1], atol=1e-5)
    same = client.post("/v1/embeddings", json={"model": EMBED, "input": [TEXTS[0], *TEXTS]})
    assert answer.headers["x-cost"] == same.headers["x-cost"]


@pytest.mark.parametrize("path", ["/predict", f"/tei/{RERANK}/predict"])
def test_tei_predicts_the_scores_of_pairs(client, path):
    body = {"query": TEXTS[0], "texts": TEXTS, "raw_scores": True}
    ranks = posted(client, f"/tei/{RERANK}/rerank", **body)
    scores = [rank["score"] for rank in sorted(ranks, key=lambda rank: rank["index"])]
    pairs = [[TEXTS[0], text] for text in TEXTS]
    told = posted(client, path, inputs=pairs, raw_scores=True)
    assert [[each["label"] for each in one] for one in told] == [["LABEL_0"]] * 2
    np.testing.assert_allclose([one[0]["score"] for one in told], scores, atol=1e-5)
    [one] = posted(client, path, inputs=pairs[1], raw_scores=True)
    assert one["score"] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize(
    ("path", "inputs"),
    [
        ("/predict", "a text"),
        ("/predict", ["a"]),
        ("/predict", [["a", "b"], ["c", "d"]]),
        ("/predict", [["a", ""]]),
        ("/predict", []),
        ("/similarity", "a"),
        ("/similarity", {"source_sentence": "a", "sentences": []}),
        ("/similarity", {"source_sentence": "", "sentences": ["a"]}),
        ("/similarity", None),
    ],
)
def test_tei_refuses_what_is_no_pair_and_no_sentences(client, path, inputs):
    answer = client.post(path, json={"inputs": inputs})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith("inputs")
