"""LangChain's embeddings and rerankers."""

import warnings

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
    same_query,
    step,
)

warnings.simplefilter("ignore")
from langchain_core.documents import Document  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402

PAPERS = [Document(text, metadata={"at": index}) for index, text in enumerate(DOCUMENTS)]


def embeds(of: Embeddings) -> None:
    with step("embed_documents"):
        same(of.embed_documents(TEXTS))
    with step("embed_query"):
        same_query(of.embed_query(QUERY))
    with step("asynchronously"):
        same(check.waited(lambda: of.aembed_documents(TEXTS)))


def pairs(documents: list[Document]) -> list[tuple[int, float]]:
    return [(each.metadata["at"], each.metadata["relevance_score"]) for each in documents]


def openai() -> None:
    import openai
    from langchain_openai import AzureOpenAIEmbeddings, OpenAIEmbeddings

    check.client("langchain-openai, strings")
    settings = {"base_url": f"{BASE}/v1", "api_key": KEY, "check_embedding_ctx_length": False}
    embeds(OpenAIEmbeddings(model=MODEL, **settings))
    with refused("wrong key", openai.AuthenticationError, "key"):
        OpenAIEmbeddings(model=MODEL, **{**settings, "api_key": WRONG_KEY}).embed_query(QUERY)
    with refused("unknown model", openai.NotFoundError, NO_MODEL):
        OpenAIEmbeddings(model=NO_MODEL, **settings).embed_query(QUERY)

    # What it splits texts with comes from the network where TIKTOKEN_CACHE_DIR has it not.
    check.client("langchain-openai, default (token ids)")
    embeds(OpenAIEmbeddings(model=MODEL, base_url=f"{BASE}/v1", api_key=KEY))
    with step("a text of more than one chunk is averaged by the client"):
        long = OpenAIEmbeddings(
            model=MODEL, base_url=f"{BASE}/v1", api_key=KEY, embedding_ctx_length=8
        )
        assert len(long.embed_query(" ".join(TEXTS))) == 384

    check.client("langchain-openai AzureOpenAIEmbeddings")
    azure = {
        "azure_endpoint": BASE,
        "api_version": "2024-10-21",
        "check_embedding_ctx_length": False,
    }
    embeds(AzureOpenAIEmbeddings(azure_deployment=MODEL, model=MODEL, api_key=KEY, **azure))


def cohere() -> None:
    from cohere.errors import NotFoundError, UnauthorizedError
    from langchain_cohere import CohereEmbeddings, CohereRerank

    check.client("langchain-cohere")
    embeds(CohereEmbeddings(model=MODEL, base_url=BASE, cohere_api_key=KEY))
    reranker = CohereRerank(model=RERANK_MODEL, base_url=BASE, cohere_api_key=KEY)
    with step("CohereRerank, top_n 3"):
        ranked(pairs(list(reranker.compress_documents(PAPERS, QUERY))), 3)
    with refused("wrong key", UnauthorizedError, "key"):
        CohereEmbeddings(model=MODEL, base_url=BASE, cohere_api_key=WRONG_KEY).embed_query(QUERY)
    with refused("unknown model", NotFoundError, NO_MODEL):
        CohereRerank(model=NO_MODEL, base_url=BASE, cohere_api_key=KEY).compress_documents(
            PAPERS, QUERY
        )


def voyage() -> None:
    import voyageai
    from langchain_voyageai import VoyageAIEmbeddings, VoyageAIRerank
    from voyageai.error import APIError, AuthenticationError

    # It counts a text's tokens with the tokenizer `voyageai/MODEL` of the hub, to fill batches.
    voyageai.Client.tokenize = lambda _, texts, model=None: [text.split() for text in texts]  # noqa: ARG005
    check.client("langchain-voyageai")
    settings = {"base_url": f"{BASE}/v1", "api_key": KEY}
    embeds(VoyageAIEmbeddings(model=MODEL, batch_size=2, **settings))
    reranker = VoyageAIRerank(model=RERANK_MODEL, top_k=3, **settings)
    with step("VoyageAIRerank, top_k 3"):
        ranked(pairs(list(reranker.compress_documents(PAPERS, QUERY))), 3)
    with refused("wrong key", AuthenticationError, "key"):
        VoyageAIEmbeddings(model=MODEL, **{**settings, "api_key": WRONG_KEY}).embed_query(QUERY)
    with refused("unknown model", APIError, NO_MODEL):
        VoyageAIRerank(model=NO_MODEL, **settings).compress_documents(PAPERS, QUERY)


def jina() -> None:
    from langchain_community.document_compressors import JinaRerank, jina_rerank
    from langchain_community.embeddings import JinaEmbeddings
    from langchain_community.embeddings import jina as jina_embeddings

    # Neither has a setting for its URL: it is a constant of the module.
    jina_embeddings.JINA_API_URL = f"{BASE}/v1/embeddings"
    jina_rerank.JINA_API_URL = f"{BASE}/v1/rerank"
    check.client("langchain-community Jina")
    embeds(JinaEmbeddings(model_name=MODEL, jina_api_key=KEY))
    with step("JinaRerank, top_n 3"):
        reranker = JinaRerank(model=RERANK_MODEL, jina_api_key=KEY)
        ranked(pairs(list(reranker.compress_documents(PAPERS, QUERY))), 3)
    with refused("wrong key", RuntimeError, "key"):
        JinaEmbeddings(model_name=MODEL, jina_api_key=WRONG_KEY).embed_query(QUERY)
    with refused("unknown model", RuntimeError, NO_MODEL):
        JinaRerank(model=NO_MODEL, jina_api_key=KEY).compress_documents(PAPERS, QUERY)


def ollama() -> None:
    import ollama
    from langchain_ollama import OllamaEmbeddings

    check.client("langchain-ollama")

    def of(key: str, model: str = MODEL, **rest: bool) -> OllamaEmbeddings:
        headers = {"headers": {"Authorization": f"Bearer {key}"}}
        return OllamaEmbeddings(model=model, base_url=BASE, client_kwargs=headers, **rest)

    embeds(of(KEY))
    with step("validate_model_on_init"):
        same_query(of(KEY, validate_model_on_init=True).embed_query(QUERY))
    with refused("wrong key", ollama.ResponseError, "key", "401"):
        of(WRONG_KEY).embed_query(QUERY)
    with refused("unknown model", ollama.ResponseError, NO_MODEL):
        of(KEY, NO_MODEL).embed_query(QUERY)


def hugging_face() -> None:
    from huggingface_hub import AsyncInferenceClient, InferenceClient
    from huggingface_hub.errors import HfHubHTTPError
    from langchain_huggingface import HuggingFaceEndpointEmbeddings

    check.client("langchain-huggingface HuggingFaceEndpointEmbeddings")

    def of(key: str, path: str) -> HuggingFaceEndpointEmbeddings:
        # It takes names of the hub alone; a URL is given to the clients that it uses.
        made = HuggingFaceEndpointEmbeddings(model=MODEL, huggingfacehub_api_token=key)
        made.client = InferenceClient(model=BASE + path, token=key)
        made.async_client = AsyncInferenceClient(model=BASE + path, token=key)
        return made

    embeds(of(KEY, f"/tei/{MODEL}"))
    with refused("wrong key", HfHubHTTPError, "401"):
        of(WRONG_KEY, f"/tei/{MODEL}").embed_query(QUERY)
    with refused("unknown model", HfHubHTTPError, "404"):
        of(KEY, f"/tei/{NO_MODEL}").embed_query(QUERY)


for one in (openai, cohere, voyage, jina, ollama, hugging_face):
    with step("imports"):
        check.client(f"langchain {one.__name__}")
        one()
