"""LiteLLM's embedding() and rerank(), by each of the providers that take a URL."""

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import check
import litellm
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
    same_query,
    step,
)

litellm.suppress_debug_info = True


def vectors(answer: Any) -> list[list[float]]:
    return [each["embedding"] for each in answer["data"]]


def embeds(provider: str, url: str, model: str = MODEL, **rest: Any) -> None:
    def embed(texts: list[str], name: str = model, key: str = KEY) -> Any:
        return litellm.embedding(
            model=f"{provider}/{name}",
            input=texts,
            api_base=url,
            api_key=key,
            max_retries=0,
            **rest,
        )

    with step("embedding() of several texts"):
        same(vectors(embed(TEXTS)))
    with step("embedding() of one text"):
        same_query(vectors(embed([QUERY])))
    with step("aembedding()"):

        async def embed_later() -> Any:
            return await litellm.aembedding(
                model=f"{provider}/{model}", input=TEXTS, api_base=url, api_key=KEY, **rest
            )

        same(vectors(check.waited(embed_later)))
    with refused("embedding(), wrong key", Exception, "key"):
        embed([QUERY], key=WRONG_KEY)
    if model == MODEL:
        with refused("embedding(), unknown model", Exception, NO_MODEL):
            embed([QUERY], name=NO_MODEL)


def reranks(provider: str, url: str, model: str = RERANK_MODEL) -> None:
    def rerank(name: str = model, key: str = KEY, **rest: Any) -> Any:
        return litellm.rerank(
            model=f"{provider}/{name}",
            query=QUERY,
            documents=DOCUMENTS,
            api_base=url,
            api_key=key,
            **rest,
        )

    with step("rerank()"):
        ranked([(each["index"], each["relevance_score"]) for each in rerank().results])
    with step("rerank(), return_documents=False"):
        got = rerank(return_documents=False).results
        ranked([(each["index"], each["relevance_score"]) for each in got])
    with step("rerank(), top_n, return_documents"):
        got = rerank(top_n=3, return_documents=True).results
        ranked([(each["index"], each["relevance_score"]) for each in got], 3)
        for each in got:
            assert each["document"]["text"] == DOCUMENTS[each["index"]], each["document"]
    with refused("rerank(), wrong key", Exception, "key"):
        rerank(key=WRONG_KEY)


check.client("litellm openai/")
embeds("openai", f"{BASE}/v1")
check.client("litellm hosted_vllm/")
embeds("hosted_vllm", f"{BASE}/v1")
reranks("hosted_vllm", f"{BASE}/v1")
check.client("litellm cohere/")
embeds("cohere", f"{BASE}/v2/embed")
reranks("cohere", BASE)
check.client("litellm voyage/")
embeds("voyage", f"{BASE}/v1")
reranks("voyage", f"{BASE}/v1")
check.client("litellm jina_ai/")
embeds("jina_ai", f"{BASE}/v1")
reranks("jina_ai", f"{BASE}/v1")
check.client("litellm infinity/")
embeds("infinity", f"{BASE}/v1")
reranks("infinity", f"{BASE}/v1")
check.client("litellm huggingface/ (TEI)")
# Without a task it asks the hub about the model; a name with "sentence-transformers" is taken for
# sentence similarity.
embeds("huggingface", f"{BASE}/tei/{MODEL}", model="tei", input_type="embed")
reranks("huggingface", f"{BASE}/tei/{RERANK_MODEL}", model="tei")
check.client("litellm ollama/")
embeds("ollama", BASE)
check.client("litellm azure/")
embeds("azure", BASE, api_version="2024-10-21")
