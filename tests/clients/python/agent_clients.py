"""Frameworks for agents that embed: Pydantic AI and Mem0."""

import os
import warnings
from typing import Any

import check
from check import BASE, KEY, MODEL, QUERY, TEXTS, same, same_query, step

warnings.simplefilter("ignore")
os.environ["MEM0_TELEMETRY"] = "False"

check.client("pydantic-ai Embedder")
with step("embeds documents and a query"):
    from pydantic_ai import Embedder
    from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{BASE}/v1", api_key=KEY)
    embedder = Embedder(OpenAIEmbeddingModel(MODEL, provider=provider))

    async def both() -> Any:
        return await embedder.embed_documents(TEXTS), await embedder.embed_query(QUERY)

    documents, query = check.waited(both)
    same(documents.embeddings)
    same_query(query.embeddings)

check.client("mem0 OpenAI embedder")
with step("embeds a memory"):
    from mem0.configs.embeddings.base import BaseEmbedderConfig
    from mem0.embeddings.openai import OpenAIEmbedding

    config = BaseEmbedderConfig(
        model=MODEL, api_key=KEY, openai_base_url=f"{BASE}/v1", embedding_dims=384
    )
    same_query(OpenAIEmbedding(config).embed(QUERY, "search"))
