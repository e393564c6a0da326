"""Ollama's SDK."""

import check
import ollama
from check import (
    BASE,
    KEY,
    MODEL,
    NO_MODEL,
    QUERY,
    TEXTS,
    WRONG_KEY,
    refused,
    same,
    same_query,
    step,
)

check.client("ollama")


def client_of(key: str) -> ollama.Client:
    return ollama.Client(host=BASE, headers={"Authorization": f"Bearer {key}"})


local = client_of(KEY)
with step("embeds several texts"):
    got = local.embed(model=MODEL, input=TEXTS)
    same(got.embeddings)
    assert got.prompt_eval_count > 0
    assert got.total_duration > 0
with step("embeds one text"):
    same_query(local.embed(model=MODEL, input=QUERY)["embeddings"])
with step("embeds by the older call"):
    same_query(local.embeddings(model=MODEL, prompt=QUERY).embedding)
with step("a name with a tag"):
    same_query(local.embed(model=f"{MODEL}:latest", input=QUERY).embeddings)
with step("truncate, options and keep_alive"):
    got = local.embed(
        model=MODEL,
        input=["word " * 600],
        truncate=True,
        options={"temperature": 0.1, "num_ctx": 256},
        keep_alive="5m",
    )
    assert len(got.embeddings[0]) == 384
with refused("truncate=False on a long text", ollama.ResponseError, "token"):
    local.embed(model=MODEL, input=["word " * 600], truncate=False)
with step("dimensions of the model"):
    same(local.embed(model=MODEL, input=TEXTS, dimensions=384).embeddings)
with refused("dimensions that it does not have", ollama.ResponseError, "384"):
    local.embed(model=MODEL, input=TEXTS, dimensions=64)
with step("lists models"):
    listed = {model.model for model in local.list().models}
    assert "sentence-transformers/all-MiniLM-L6-v2" in {
        name.removesuffix(":latest") for name in listed
    }
with step("asynchronously"):

    async def embed() -> ollama.EmbedResponse:
        headers = {"Authorization": f"Bearer {KEY}"}
        return await ollama.AsyncClient(host=BASE, headers=headers).embed(model=MODEL, input=TEXTS)

    same(check.waited(embed).embeddings)
with refused("wrong key", ollama.ResponseError, "key", "401"):
    client_of(WRONG_KEY).embed(model=MODEL, input=TEXTS)
with refused("unknown model", ollama.ResponseError, NO_MODEL, "404"):
    local.embed(model=NO_MODEL, input=TEXTS)
with step("an error is one sentence"):
    said: list[object] = []
    try:
        local.embed(model=NO_MODEL, input=TEXTS)
    except ollama.ResponseError as error:
        said = [error.error]
    assert [type(each) for each in said] == [str], said
