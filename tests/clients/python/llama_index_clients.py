"""LlamaIndex's embeddings and rerankers."""

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
from llama_index.core.base.embeddings.base import BaseEmbedding  # noqa: E402
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import NodeWithScore, TextNode  # noqa: E402


def embeds(of: BaseEmbedding) -> None:
    with step("embeds texts in batches"):
        same(of.get_text_embedding_batch(TEXTS))
    with step("embeds one text"):
        same(of.get_text_embedding(TEXTS[0]), check.VECTORS[:1])
    with step("embeds a query"):
        same_query(of.get_query_embedding(QUERY))
    with step("asynchronously"):
        same(check.waited(lambda: of.aget_text_embedding_batch(TEXTS)))


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=str(at)), score=0.5)
        for at, text in enumerate(DOCUMENTS)
    ]


def reranks(of: BaseNodePostprocessor, top_n: int) -> None:
    with step(f"reranks nodes, top_n {top_n}"):
        got = of.postprocess_nodes(nodes(), query_str=QUERY)
        ranked([(int(each.node.node_id), each.score) for each in got], top_n)


def openai() -> None:
    import openai
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    check.client("llama-index openai-like")

    def of(model: str, key: str) -> OpenAILikeEmbedding:
        return OpenAILikeEmbedding(
            model_name=model, api_base=f"{BASE}/v1", api_key=key, max_retries=1
        )

    embeds(of(MODEL, KEY))
    with refused("wrong key", openai.AuthenticationError, "key"):
        of(MODEL, WRONG_KEY).get_query_embedding(QUERY)
    with refused("unknown model", openai.NotFoundError, NO_MODEL):
        of(NO_MODEL, KEY).get_query_embedding(QUERY)


def cohere() -> None:
    from cohere.errors import NotFoundError, UnauthorizedError
    from llama_index.embeddings.cohere import CohereEmbedding
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    check.client("llama-index cohere")
    # It refuses names that Cohere does not have: the model must answer to one of those too.
    theirs = "embed-english-v3.0"

    def of(model: str, key: str) -> CohereEmbedding:
        return CohereEmbedding(
            api_key=key, base_url=BASE, model_name=model, input_type="search_document"
        )

    embeds(of(theirs, KEY))
    reranks(CohereRerank(api_key=KEY, base_url=BASE, model=RERANK_MODEL, top_n=3), 3)
    with refused("wrong key", UnauthorizedError, "key"):
        of(theirs, WRONG_KEY).get_query_embedding(QUERY)
    with refused("unknown model", NotFoundError, NO_MODEL):
        CohereRerank(api_key=KEY, base_url=BASE, model=NO_MODEL).postprocess_nodes(
            nodes(), query_str=QUERY
        )


def jina() -> None:
    from llama_index.embeddings.jinaai import JinaEmbedding
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    check.client("llama-index jinaai")

    def of(model: str, key: str, **rest: str) -> JinaEmbedding:
        made = JinaEmbedding(model=model, api_key=key, **rest)
        # Its class has no setting for the URL; the caller that it makes has.
        made._api.api_url = f"{BASE}/v1/embeddings"
        return made

    embeds(of(MODEL, KEY))
    for kind in ("binary", "ubinary"):
        with step(f"encoding {kind}, unpacked by the client"):
            got = of(MODEL, KEY, encoding_documents=kind).get_text_embedding_batch(TEXTS)
            assert got == (check.VECTORS > 0).astype(int).tolist(), "other bits"
    reranker = JinaRerank(api_key=KEY, base_url=f"{BASE}/v1", model=RERANK_MODEL, top_n=2)
    reranks(reranker, 2)
    with refused("wrong key", RuntimeError, "key"):
        of(MODEL, WRONG_KEY).get_query_embedding(QUERY)
    with refused("unknown model", RuntimeError, NO_MODEL):
        of(NO_MODEL, KEY).get_query_embedding(QUERY)


def tei() -> None:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    check.client("llama-index text-embeddings-inference, tei-rerank")
    embeds(
        TextEmbeddingsInference(
            model_name=MODEL, base_url=f"{BASE}/tei/{MODEL}", auth_token=KEY, embed_batch_size=2
        )
    )
    for shown, key in (("key with Bearer", f"Bearer {KEY}"), ("key alone", KEY)):
        url = f"{BASE}/tei/{RERANK_MODEL}"
        with step(shown):
            got = TextEmbeddingInference(base_url=url, auth_token=key, top_n=3)
            done = got.postprocess_nodes(nodes(), query_str=QUERY)
            ranked([(int(each.node.node_id), each.score) for each in done], 3)


def ollama() -> None:
    import ollama
    from llama_index.embeddings.ollama import OllamaEmbedding

    check.client("llama-index ollama")

    def of(model: str, key: str) -> OllamaEmbedding:
        headers = {"headers": {"Authorization": f"Bearer {key}"}}
        return OllamaEmbedding(model_name=model, base_url=BASE, client_kwargs=headers)

    embeds(of(MODEL, KEY))
    with refused("wrong key", ollama.ResponseError, "key", "401"):
        of(MODEL, WRONG_KEY).get_query_embedding(QUERY)
    with refused("unknown model", ollama.ResponseError, NO_MODEL):
        of(NO_MODEL, KEY).get_query_embedding(QUERY)


def voyage() -> None:
    import voyageai
    from llama_index.embeddings.voyageai import VoyageEmbedding
    from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank

    # It counts a text's tokens with the tokenizer `voyageai/MODEL` of the hub, to fill batches.
    voyageai.Client.tokenize = lambda _, texts, model=None: [text.split() for text in texts]  # noqa: ARG005
    check.client("llama-index voyageai")

    def of(model: str, key: str) -> VoyageEmbedding:
        made = VoyageEmbedding(model_name=model, voyage_api_key=key, truncation=True)
        # Its class has no setting for the URL; the SDK's clients, which it makes, have.
        made._client = voyageai.Client(api_key=key, base_url=f"{BASE}/v1")
        made._aclient = voyageai.AsyncClient(api_key=key, base_url=f"{BASE}/v1")
        return made

    embeds(of(MODEL, KEY))
    with step("reranks nodes, top_k 3"):
        reranker = VoyageAIRerank(model=RERANK_MODEL, api_key=KEY, top_n=3, truncation=True)
        reranker._client = voyageai.Client(api_key=KEY, base_url=f"{BASE}/v1")
        got = reranker.postprocess_nodes(nodes(), query_str=QUERY)
        ranked([(int(each.node.node_id), each.score) for each in got], 3)
    with refused("wrong key", voyageai.error.AuthenticationError, "key"):
        of(MODEL, WRONG_KEY).get_query_embedding(QUERY)


for one in (openai, cohere, jina, tei, ollama, voyage):
    with step("imports"):
        check.client(f"llama-index {one.__name__}")
        one()
