"""Cohere's SDK: `Client` (version 1 of its API) and `ClientV2`."""

import base64
from typing import Any

import check
import cohere
import numpy as np
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
from cohere.errors import BadRequestError, NotFoundError, UnauthorizedError

KINDS = ["int8", "uint8", "binary", "ubinary"]
LONG = "word " * 600


def pairs(answer: Any) -> list[tuple[int, float]]:
    return [(each.index, each.relevance_score) for each in answer.results]


def floats_of(encoded: list[str]) -> np.ndarray:
    return np.array([np.frombuffer(base64.b64decode(each), "<f4") for each in encoded])


check.client("cohere Client")
one = cohere.Client(api_key=KEY, base_url=BASE)
with step("embeds several texts"):
    got = one.embed(texts=TEXTS, model=MODEL, input_type="search_document")
    same(got.embeddings)
    assert got.texts == TEXTS
    assert got.response_type == "embeddings_floats"
    assert got.meta.billed_units.input_tokens > 0
with step("embeds a query"):
    same_query(one.embed(texts=[QUERY], model=MODEL, input_type="search_query").embeddings)
with step("embeds 200 texts, three requests merged"):
    got = one.embed(texts=TEXTS * 50, model=MODEL, input_type="search_document")
    same(got.embeddings, np.tile(check.VECTORS, (50, 1)))
with step("embedding types float, int8, uint8, binary, ubinary"):
    got = one.embed(
        texts=TEXTS, model=MODEL, input_type="clustering", embedding_types=["float", *KINDS]
    )
    assert got.response_type == "embeddings_by_type"
    same(got.embeddings.float_)
    for kind in KINDS:
        same_bytes(getattr(got.embeddings, kind), kind)
with step("embedding type base64"):
    got = one.embed(
        texts=TEXTS, model=MODEL, input_type="classification", embedding_types=["base64"]
    )
    same(floats_of(got.embeddings.base64))
with step("truncate START and END"):
    start = one.embed(texts=[LONG], model=MODEL, input_type="search_query", truncate="START")
    end = one.embed(texts=[LONG], model=MODEL, input_type="search_query", truncate="END")
    assert len(start.embeddings[0]) == len(end.embeddings[0]) == 384
with refused("truncate NONE on a long text", BadRequestError, "token"):
    one.embed(texts=[LONG], model=MODEL, input_type="search_query", truncate="NONE")
with step("reranks, top_n and documents"):
    got = one.rerank(
        model=RERANK_MODEL, query=QUERY, documents=DOCUMENTS, top_n=3, return_documents=True
    )
    ranked(pairs(got), 3)
    assert [each.document.text for each in got.results] == [
        DOCUMENTS[each.index] for each in got.results
    ]
with step("reranks objects by rank_fields"):
    objects = [{"id": str(i), "text": text} for i, text in enumerate(DOCUMENTS)]
    ranked(pairs(one.rerank(model=RERANK_MODEL, query=QUERY, documents=objects)))
with step("tokenize and detokenize"):
    tokens = one.tokenize(text=TEXTS[0].lower(), model=MODEL).tokens
    assert len(tokens) >= 5
    assert one.detokenize(tokens=tokens, model=MODEL).text.strip() == TEXTS[0].lower()
with step("tokenize and detokenize by the API alone"):
    answer = one.tokenize(text=TEXTS[0], model=MODEL, offline=False)
    assert len(answer.token_strings) == len(answer.tokens) >= 5
    assert answer.tokens == one.tokenize(text=TEXTS[0], model=MODEL).tokens
with step("lists and shows models"):
    listed = {model.name: model for model in one.models.list(page_size=1000).models}
    assert "embed" in listed["sentence-transformers/all-MiniLM-L6-v2"].endpoints
    assert "rerank" in listed[RERANK_MODEL].endpoints
    assert one.models.get(model=MODEL).context_length == 256
with step("lists models of an endpoint"):
    names = {model.name for model in one.models.list(endpoint="rerank").models}
    assert RERANK_MODEL in names
    assert "sentence-transformers/all-MiniLM-L6-v2" not in names
with refused("wrong key", UnauthorizedError, "key"):
    cohere.Client(api_key=WRONG_KEY, base_url=BASE).embed(
        texts=TEXTS, model=MODEL, input_type="search_query"
    )
with refused("unknown model", NotFoundError, NO_MODEL):
    one.embed(texts=TEXTS, model=NO_MODEL, input_type="search_query")

check.client("cohere ClientV2")
for base in (BASE, f"{BASE}/v1"):
    two = cohere.ClientV2(api_key=KEY, base_url=base)
    shown = base.removeprefix(BASE) or "without /v1"
    with step(f"embeds several texts, base URL {shown}"):
        got = two.embed(
            texts=TEXTS, model=MODEL, input_type="search_document", embedding_types=["float"]
        )
        same(got.embeddings.float_)
    with step(f"reranks, base URL {shown}"):
        ranked(pairs(two.rerank(model=RERANK_MODEL, query=QUERY, documents=DOCUMENTS, top_n=2)), 2)
two = cohere.ClientV2(api_key=KEY, base_url=BASE)
with step("embeds a query without embedding types"):
    same_query(two.embed(texts=[QUERY], model=MODEL, input_type="search_query").embeddings.float_)
with step("all embedding types in one answer"):
    got = two.embed(
        texts=TEXTS,
        model=MODEL,
        input_type="search_document",
        embedding_types=["float", "base64", *KINDS],
    )
    same(got.embeddings.float_)
    same(floats_of(got.embeddings.base64))
    for kind in KINDS:
        same_bytes(getattr(got.embeddings, kind), kind)
    assert got.id
    assert got.meta.billed_units.input_tokens > 0
with step("inputs of text content"):
    got = two.embed(
        inputs=[{"content": [{"type": "text", "text": text}]} for text in TEXTS],
        model=MODEL,
        input_type="search_document",
        embedding_types=["float"],
    )
    same(got.embeddings.float_)
with step("output_dimension of the model"):
    got = two.embed(
        texts=TEXTS,
        model=MODEL,
        input_type="search_query",
        embedding_types=["float"],
        output_dimension=384,
    )
    same(got.embeddings.float_)
with refused("output_dimension that it does not have", BadRequestError, "384"):
    two.embed(
        texts=TEXTS,
        model=MODEL,
        input_type="search_query",
        embedding_types=["float"],
        output_dimension=64,
    )
with step("reranks with max_tokens_per_doc and priority"):
    got = two.rerank(
        model=RERANK_MODEL, query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=100, priority=1
    )
    ranked(pairs(got))
    assert got.meta.billed_units.search_units == 1
with step("asynchronously"):

    async def rerank() -> Any:
        asynchronous = cohere.AsyncClientV2(api_key=KEY, base_url=BASE)
        return await asynchronous.rerank(model=RERANK_MODEL, query=QUERY, documents=DOCUMENTS)

    ranked(pairs(check.waited(rerank)))
with refused("wrong key", UnauthorizedError, "key"):
    cohere.ClientV2(api_key=WRONG_KEY, base_url=BASE).rerank(
        model=RERANK_MODEL, query=QUERY, documents=DOCUMENTS
    )
with refused("unknown model", NotFoundError, NO_MODEL):
    two.rerank(model=NO_MODEL, query=QUERY, documents=DOCUMENTS)
