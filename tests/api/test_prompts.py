"""`input_type` and `id#query`: a model's own words before a text, counted and billed with it."""

import asyncio

import pytest

from tests.appliance import bench
from tests.server import EMBED

PROMPTS = """
schema = 1
[[model]]
id = "sentence-transformers/all-MiniLM-L6-v2"
prompts = { query = "search query: ", document = "passage: " }
[[model]]
id = "gigarouter/starter-rerank"
prompts = { query = "search query: " }
"""


def run(tmp_path, story, *, prompts=True):
    path = tmp_path / "data"
    path.mkdir(mode=0o700, parents=True)
    if prompts:
        (path / "models.toml").write_text(PROMPTS)

    async def whole():
        async with bench(path) as on:
            await story(on, await on.key())

    asyncio.run(whole())


async def embed(on, key, text, **more):
    body = {"model": EMBED, "input": text, **more}
    answer = await on.client.post("/v1/embeddings", json=body, headers=key)
    assert answer.status_code == 200, answer.text
    return answer


def vector(answer):
    return answer.json()["data"][0]["embedding"]


@pytest.mark.parametrize(
    ("more", "prompt"),
    [
        ({"input_type": "query"}, "search query: "),
        ({"input_type": "search_document"}, "passage: "),
        ({"model": f"{EMBED}#query"}, "search query: "),
        ({"model": "all-minilm-l6-v2#document"}, "passage: "),
        ({}, ""),
    ],
)
def test_the_kind_of_a_text_puts_the_models_words_before_it(tmp_path, more, prompt):
    async def story(on, key):
        told = await embed(on, key, "where is it", **more)
        spelt = await embed(on, key, f"{prompt}where is it")
        assert vector(told) == vector(spelt)
        assert told.json()["model"] == EMBED
        for fact in ("usage",):
            assert told.json()[fact] == spelt.json()[fact]
        assert told.headers["x-cost"] == spelt.headers["x-cost"]

    run(tmp_path, story)


def test_a_text_is_cut_with_its_prompt_in_front(tmp_path):
    async def story(on, key):
        told = await embed(on, key, "word " * 600, input_type="query")
        spelt = await embed(on, key, "search query: " + "word " * 600)
        assert vector(told) == vector(spelt)
        assert told.headers["x-truncated"] == "1"
        assert told.json()["usage"]["prompt_tokens"] == 256

    run(tmp_path, story)


def test_a_model_without_prompts_takes_texts_as_they_are(tmp_path):
    async def story(on, key):
        assert vector(await embed(on, key, "a", input_type="query")) == vector(
            await embed(on, key, "a")
        )

    run(tmp_path, story, prompts=False)


def test_another_kind_is_refused_by_name(tmp_path):
    async def story(on, key):
        for body, param in (
            ({"model": EMBED, "input": "a", "input_type": "title"}, "input_type"),
            ({"model": f"{EMBED}#title", "input": "a"}, "model"),
        ):
            answer = await on.client.post("/v1/embeddings", json=body, headers=key)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    run(tmp_path, story)


def test_a_reranker_by_vectors_asks_with_its_own_words(tmp_path):
    async def story(on, key):
        async def scores(query):
            body = {"model": "starter-rerank", "query": query, "documents": ["a", "b"]}
            answer = await on.client.post("/v1/rerank", json=body, headers=key)
            return answer.json()["usage"]["prompt_tokens"], answer.headers["x-model-fingerprint"]

        found.append(await scores("where"))

    found = []
    run(tmp_path / "with", story)
    run(tmp_path / "without", story, prompts=False)
    (tokens, fingerprint), (fewer, another) = found
    assert tokens - fewer == 3  # search, query, :
    assert fingerprint != another
