"""Chroma's embedding functions."""

import os
import warnings

import check
from check import BASE, KEY, MODEL, QUERY, TEXTS, same, same_query, step

warnings.simplefilter("ignore")
os.environ["ANONYMIZED_TELEMETRY"] = "False"
os.environ |= {
    "CHROMA_OPENAI_API_KEY": KEY,
    "CHROMA_COHERE_API_KEY": KEY,
    "CHROMA_JINA_API_KEY": KEY,
    "CHROMA_VOYAGE_API_KEY": KEY,
    "CHROMA_HUGGINGFACE_API_KEY": KEY,
    # These have no setting for a URL: the SDKs read it.
    "CO_API_URL": BASE,
    "OLLAMA_API_KEY": KEY,
}
from chromadb.utils import embedding_functions as functions  # noqa: E402

check.client("chromadb embedding functions")
with step("OpenAI"):
    of = functions.OpenAIEmbeddingFunction(model_name=MODEL, api_base=f"{BASE}/v1")
    same(of(TEXTS))
    same_query(of.embed_query([QUERY]))
with step("Cohere"):
    same(functions.CohereEmbeddingFunction(model_name=MODEL)(TEXTS))
for kind in (None, "float"):
    with step(f"Jina, embedding_type {kind}"):
        of = functions.JinaEmbeddingFunction(model_name=MODEL, embedding_type=kind, normalized=True)
        of._api_url = f"{BASE}/v1/embeddings"
        same(of(TEXTS))
with step("Jina, task, late_chunking and truncate"):
    of = functions.JinaEmbeddingFunction(
        model_name=MODEL, task="retrieval.passage", late_chunking=False, truncate=True
    )
    of._api_url = f"{BASE}/v1/embeddings"
    same(of(TEXTS))
with step("Jina, late_chunking"):
    of = functions.JinaEmbeddingFunction(model_name=MODEL, late_chunking=True)
    of._api_url = f"{BASE}/v1/embeddings"
    assert len(of(TEXTS)) == len(TEXTS)
    same(of(TEXTS[:1]), check.VECTORS[:1])
with step("HuggingFaceEmbeddingServer"):
    url = f"{BASE}/tei/{MODEL}/embed"
    of = functions.HuggingFaceEmbeddingServer(url=url, api_key_env_var="CHROMA_HUGGINGFACE_API_KEY")
    same(of(TEXTS))
with step("Ollama"):
    same(functions.OllamaEmbeddingFunction(url=BASE, model_name=MODEL)(TEXTS))
with step("a collection is searched"):
    import chromadb

    of = functions.OpenAIEmbeddingFunction(model_name=MODEL, api_base=f"{BASE}/v1")
    kept = chromadb.EphemeralClient().create_collection("texts", embedding_function=of)
    kept.add(ids=[str(at) for at in range(len(TEXTS))], documents=TEXTS)
    assert kept.query(query_texts=[QUERY], n_results=1)["ids"] == [["3"]]
