"""Voyage AI's SDK."""

from typing import Any

import check
import voyageai
from check import (
    BASE,
    DOCUMENTS,
    KEY,
    MODEL,
    NO_MODEL,
    QUERY,
    RERANK_MODEL,
    TEXTS,
    WRONG_KEY,
    ranked,
    refused,
    same,
    same_bytes,
    same_query,
    step,
)
from voyageai import error as errors

check.client("voyageai")


def pairs(answer: Any) -> list[tuple[int, float]]:
    for each in answer.results:
        assert each.document == DOCUMENTS[each.index]
    return [(each.index, each.relevance_score) for each in answer.results]


vo = voyageai.Client(api_key=KEY, base_url=f"{BASE}/v1", max_retries=1)
with step("embeds several texts"):
    got = vo.embed(TEXTS, model=MODEL, input_type="document")
    same(got.embeddings)
    assert got.total_tokens > 0
with step("reranks"):
    got = vo.rerank(QUERY, DOCUMENTS, model=RERANK_MODEL)
    ranked(pairs(got))
    assert got.total_tokens > 0
with step("reranks, top_k 2"):
    ranked(pairs(vo.rerank(QUERY, DOCUMENTS, model=RERANK_MODEL, top_k=2)), 2)
with step("embeds a query"):
    same_query(vo.embed([QUERY], model=MODEL, input_type="query").embeddings)
with step("embeds without an input type"):
    same_query(vo.embed([QUERY], model=MODEL).embeddings)
for kind in ("int8", "uint8", "binary", "ubinary"):
    with step(f"output_dtype {kind}"):
        same_bytes(vo.embed(TEXTS, model=MODEL, output_dtype=kind).embeddings, kind)
with step("output_dtype float"):
    same(vo.embed(TEXTS, model=MODEL, output_dtype="float").embeddings)
with step("output_dimension of the model"):
    same(vo.embed(TEXTS, model=MODEL, output_dimension=384).embeddings)
with refused("output_dimension that it does not have", errors.InvalidRequestError, "384"):
    vo.embed(TEXTS, model=MODEL, output_dimension=64)
with step("a long text is truncated"):
    assert len(vo.embed(["word " * 600], model=MODEL).embeddings[0]) == 384
with refused("a long text with truncation=False", errors.InvalidRequestError, "token"):
    vo.embed(["word " * 600], model=MODEL, truncation=False)
with step("asynchronously"):

    async def embed() -> Any:
        asynchronous = voyageai.AsyncClient(api_key=KEY, base_url=f"{BASE}/v1", max_retries=1)
        return await asynchronous.embed(TEXTS, model=MODEL)

    same(check.waited(embed).embeddings)
with refused("wrong key", errors.AuthenticationError, "key"):
    voyageai.Client(api_key=WRONG_KEY, base_url=f"{BASE}/v1", max_retries=1).embed(
        TEXTS, model=MODEL
    )
with refused("unknown model", errors.APIError, NO_MODEL):
    vo.embed(TEXTS, model=NO_MODEL)
