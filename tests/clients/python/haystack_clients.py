"""Haystack's embedders and rankers."""

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
import check
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
    same_direction,
    same_query,
    step,
)
from haystack import Document
from haystack.utils import Secret

PAPERS = [Document(content=text, meta={"at": at}) for at, text in enumerate(DOCUMENTS)]
GOOD, WRONG = Secret.from_token(KEY), Secret.from_token(WRONG_KEY)


def embeds(text: object, documents: object) -> None:
    with step("embeds a query"):
        same_query(text.run(text=QUERY)["embedding"])
    with step("embeds documents"):
        got = documents.run(documents=[Document(content=each) for each in TEXTS])["documents"]
        assert [each.content for each in got] == TEXTS
        same([each.embedding for each in got])


def ranks(ranker: object, top_k: int) -> None:
    with step(f"ranks documents, top_k {top_k}"):
        got = ranker.run(query=QUERY, documents=PAPERS, top_k=top_k)["documents"]
        ranked([(each.meta["at"], each.score) for each in got], top_k)


def openai() -> None:
    import openai
    from haystack.components.embedders import (
        AzureOpenAITextEmbedder,
        OpenAIDocumentEmbedder,
        OpenAITextEmbedder,
    )

    check.client("haystack OpenAI embedders")
    settings = {"model": MODEL, "api_base_url": f"{BASE}/v1"}
    embeds(
        OpenAITextEmbedder(api_key=GOOD, **settings),
        OpenAIDocumentEmbedder(api_key=GOOD, progress_bar=False, **settings),
    )
    with refused("wrong key", openai.AuthenticationError, "key"):
        OpenAITextEmbedder(api_key=WRONG, **settings).run(text=QUERY)
    with refused("unknown model", openai.NotFoundError, NO_MODEL):
        OpenAITextEmbedder(api_key=GOOD, **{**settings, "model": NO_MODEL}).run(text=QUERY)
    with step("AzureOpenAITextEmbedder"):
        azure = AzureOpenAITextEmbedder(azure_endpoint=BASE, azure_deployment=MODEL, api_key=GOOD)
        same_query(azure.run(text=QUERY)["embedding"])


def cohere() -> None:
    from haystack_integrations.components.embedders.cohere import (
        CohereDocumentEmbedder,
        CohereTextEmbedder,
    )
    from haystack_integrations.components.rankers.cohere import CohereRanker

    check.client("haystack Cohere embedders and ranker")
    settings = {"model": MODEL, "api_base_url": BASE}
    embeds(
        CohereTextEmbedder(api_key=GOOD, **settings),
        CohereDocumentEmbedder(api_key=GOOD, progress_bar=False, **settings),
    )
    ranks(CohereRanker(model=RERANK_MODEL, api_key=GOOD, api_base_url=BASE), 3)
    with refused("wrong key", Exception, "key"):
        CohereTextEmbedder(api_key=WRONG, **settings).run(text=QUERY)
    with refused("unknown model", Exception, NO_MODEL):
        CohereRanker(model=NO_MODEL, api_key=GOOD, api_base_url=BASE).run(
            query=QUERY, documents=PAPERS
        )


def jina() -> None:
    from haystack_integrations.components.embedders.jina import (
        JinaDocumentEmbedder,
        JinaTextEmbedder,
    )
    from haystack_integrations.components.rankers.jina import JinaRanker

    check.client("haystack Jina embedders and ranker")
    settings = {"model": MODEL, "base_url": f"{BASE}/v1/embeddings"}
    embeds(
        JinaTextEmbedder(api_key=GOOD, **settings),
        JinaDocumentEmbedder(api_key=GOOD, progress_bar=False, **settings),
    )
    ranks(JinaRanker(model=RERANK_MODEL, api_key=GOOD, base_url=f"{BASE}/v1/rerank"), 3)
    with refused("wrong key", RuntimeError, "key"):
        JinaTextEmbedder(api_key=WRONG, **settings).run(text=QUERY)
    with refused("unknown model", RuntimeError, NO_MODEL):
        JinaTextEmbedder(api_key=GOOD, **{**settings, "model": NO_MODEL}).run(text=QUERY)


def hugging_face() -> None:
    from haystack_integrations.components.embedders.huggingface_api import (
        HuggingFaceAPIDocumentEmbedder,
        HuggingFaceAPITextEmbedder,
    )
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    check.client("haystack HuggingFaceAPI embedders (TEI), HuggingFaceTEIRanker")
    settings = {
        "api_type": "text_embeddings_inference",
        "api_params": {"url": f"{BASE}/tei/{MODEL}"},
    }
    with step("embeds a query, by its default not of length 1"):
        raw = HuggingFaceAPITextEmbedder(token=GOOD, **settings).run(text=QUERY)["embedding"]
        same_direction(raw, check.QUERY_VECTOR)
    embeds(
        HuggingFaceAPITextEmbedder(token=GOOD, normalize=True, **settings),
        HuggingFaceAPIDocumentEmbedder(token=GOOD, progress_bar=False, normalize=True, **settings),
    )
    ranks(HuggingFaceTEIRanker(url=f"{BASE}/tei/{RERANK_MODEL}", token=GOOD), 3)
    with refused("wrong key", Exception, "401"):
        HuggingFaceAPITextEmbedder(token=WRONG, **settings).run(text=QUERY)


def ollama() -> None:
    from haystack_integrations.components.embedders.ollama import (
        OllamaDocumentEmbedder,
        OllamaTextEmbedder,
    )

    check.client("haystack Ollama embedders")
    # It has no setting for a key: Ollama's SDK reads this one.
    os.environ["OLLAMA_API_KEY"] = KEY
    embeds(
        OllamaTextEmbedder(model=MODEL, url=BASE),
        OllamaDocumentEmbedder(model=MODEL, url=BASE, progress_bar=False),
    )


for one in (openai, cohere, jina, hugging_face, ollama):
    with step("imports"):
        check.client(f"haystack {one.__name__}")
        one()
