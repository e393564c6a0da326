"""The clients: which script tries them, where they are installed, and what a user pastes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Client:
    """A row of the table; `name` is what the script says that it tries."""

    name: str
    package: str
    environment: str
    script: str
    configuration: str
    note: str = ""

    @property
    def is_large(self) -> bool:
        """Say whether it is tried only when it is named: two gigabytes."""
        return self.environment == "promptfoo"


ROOT, V1, TEI = "URL", "URL/v1", "URL/tei/MODEL"
"""Base URLs; URL is http://127.0.0.1:8642, say."""


def group(environment: str, script: str, *rows: tuple[str, ...]) -> list[Client]:
    """Rows of one script: name, package, what to paste and, if need be, a note."""
    return [Client(name, package, environment, script, *rest) for name, package, *rest in rows]


CLIENTS = [
    *group(
        "sdks",
        "openai_python.py",
        ("openai", "openai", f'OpenAI(base_url="{V1}", api_key="gr-…")'),
        (
            "openai AzureOpenAI",
            "openai",
            f'AzureOpenAI(azure_endpoint="{ROOT}", api_key="gr-…", api_version="2024-10-21")',
        ),
    ),
    *group(
        "sdks",
        "cohere_python.py",
        ("cohere Client", "cohere", f'cohere.Client("gr-…", base_url="{ROOT}")'),
        ("cohere ClientV2", "cohere", f'cohere.ClientV2("gr-…", base_url="{ROOT}")'),
    ),
    *group(
        "sdks",
        "voyage_python.py",
        ("voyageai", "voyageai", f'voyageai.Client("gr-…", base_url="{V1}")'),
    ),
    *group(
        "sdks",
        "ollama_python.py",
        (
            "ollama",
            "ollama",
            f'ollama.Client("{ROOT}", headers={{"Authorization": "Bearer gr-…"}})',
            "or the key in OLLAMA_API_KEY",
        ),
    ),
    *group(
        "sdks",
        "huggingface_python.py",
        (
            "huggingface_hub InferenceClient",
            "huggingface-hub",
            f'InferenceClient(model="{TEI}", token="gr-…")',
        ),
    ),
    *group(
        "sdks",
        "litellm_clients.py",
        *(
            (
                f"litellm {provider}",
                "litellm",
                f'model="{provider.split()[0]}MODEL", api_base="{base}", api_key="gr-…"',
                note,
            )
            for provider, base, note in (
                ("openai/", V1, ""),
                ("hosted_vllm/", V1, ""),
                ("cohere/", ROOT, "for `embedding()` it must end in `/v2/embed`"),
                ("voyage/", V1, ""),
                ("jina_ai/", V1, ""),
                ("infinity/", V1, ""),
                (
                    "huggingface/ (TEI)",
                    TEI,
                    'with `input_type="embed"`; the name in `model` is any but `sentence-transformers`',
                ),
                ("ollama/", ROOT, ""),
                ("azure/", ROOT, 'with `api_version="2024-10-21"`'),
            )
        ),
    ),
    *group(
        "langchain",
        "langchain_clients.py",
        (
            "langchain-openai, strings",
            "langchain-openai",
            f'OpenAIEmbeddings(base_url="{V1}", api_key="gr-…", check_embedding_ctx_length=False)',
        ),
        (
            "langchain-openai, default (token ids)",
            "langchain-openai",
            f'OpenAIEmbeddings(base_url="{V1}", api_key="gr-…")',
            "with the vocabulary of cl100k_base at hand (`tiktoken_dir`)",
        ),
        (
            "langchain-openai AzureOpenAIEmbeddings",
            "langchain-openai",
            f'AzureOpenAIEmbeddings(azure_endpoint="{ROOT}", azure_deployment=MODEL, api_version="2024-10-21")',
        ),
        (
            "langchain-cohere",
            "langchain-cohere",
            f'CohereEmbeddings(base_url="{ROOT}"), CohereRerank(base_url="{ROOT}")',
        ),
        (
            "langchain-voyageai",
            "langchain-voyageai",
            f'VoyageAIEmbeddings(base_url="{V1}"), VoyageAIRerank(base_url="{V1}")',
            "it counts tokens with the hub's tokenizer `voyageai/MODEL`: an alias must be one of those",
        ),
        (
            "langchain-community Jina",
            "langchain-community",
            f'langchain_community.embeddings.jina.JINA_API_URL = "{V1}/embeddings"',
        ),
        (
            "langchain-ollama",
            "langchain-ollama",
            f'OllamaEmbeddings(base_url="{ROOT}")',
            "the key in OLLAMA_API_KEY",
        ),
        (
            "langchain-huggingface HuggingFaceEndpointEmbeddings",
            "langchain-huggingface",
            f'.client = InferenceClient(model="{TEI}", token="gr-…")',
            "it refuses a URL as its model",
        ),
    ),
    *group(
        "llama_index",
        "llama_index_clients.py",
        (
            "llama-index openai-like",
            "llama-index-embeddings-openai-like",
            f'OpenAILikeEmbedding(model_name=MODEL, api_base="{V1}", api_key="gr-…")',
        ),
        (
            "llama-index cohere",
            "llama-index-embeddings-cohere",
            f'CohereEmbedding(base_url="{ROOT}", model_name="embed-english-v3.0"); CohereRerank(base_url="{ROOT}")',
            "it takes Cohere's names alone: `gigarouter models alias MODEL embed-english-v3.0`",
        ),
        (
            "llama-index jinaai",
            "llama-index-embeddings-jinaai",
            f'embedding._api.api_url = "{V1}/embeddings"; JinaRerank(base_url="{V1}")',
        ),
        (
            "llama-index text-embeddings-inference, tei-rerank",
            "llama-index-embeddings-text-embeddings-inference",
            f'TextEmbeddingsInference(base_url="{TEI}", auth_token="gr-…")',
            "the reranker sends its `auth_token` as it is, with or without `Bearer`",
        ),
        (
            "llama-index ollama",
            "llama-index-embeddings-ollama",
            f'OllamaEmbedding(base_url="{ROOT}")',
            "the key in OLLAMA_API_KEY",
        ),
        (
            "llama-index voyageai",
            "llama-index-embeddings-voyageai",
            f'embedding._client = voyageai.Client("gr-…", base_url="{V1}")',
            "it counts tokens with the hub's tokenizer `voyageai/MODEL`: an alias must be one of those",
        ),
    ),
    *group(
        "frameworks",
        "haystack_clients.py",
        (
            "haystack OpenAI embedders",
            "haystack-ai",
            f'OpenAITextEmbedder(api_base_url="{V1}")',
        ),
        (
            "haystack Cohere embedders and ranker",
            "cohere-haystack",
            f'CohereTextEmbedder(api_base_url="{ROOT}"), CohereRanker(api_base_url="{ROOT}")',
        ),
        (
            "haystack Jina embedders and ranker",
            "jina-haystack",
            f'JinaTextEmbedder(base_url="{V1}/embeddings"), JinaRanker(base_url="{V1}/rerank")',
        ),
        (
            "haystack HuggingFaceAPI embedders (TEI), HuggingFaceTEIRanker",
            "huggingface-api-haystack",
            f'api_params={{"url": "{TEI}"}}; HuggingFaceTEIRanker(url="{ROOT}")',
            "the ranker asks the root: the default model for rerank",
        ),
        (
            "haystack Ollama embedders",
            "ollama-haystack",
            f'OllamaTextEmbedder(url="{ROOT}")',
            "the key in OLLAMA_API_KEY",
        ),
    ),
    *group(
        "frameworks",
        "chroma_clients.py",
        (
            "chromadb embedding functions",
            "chromadb",
            f'OpenAIEmbeddingFunction(api_base="{V1}"), OllamaEmbeddingFunction(url="{ROOT}")',
        ),
    ),
    *group(
        "frameworks",
        "agent_clients.py",
        (
            "pydantic-ai Embedder",
            "pydantic-ai-slim",
            f'OpenAIProvider(base_url="{V1}", api_key="gr-…")',
        ),
        (
            "mem0 OpenAI embedder",
            "mem0ai",
            f'BaseEmbedderConfig(openai_base_url="{V1}", embedding_dims=384)',
        ),
    ),
    *group(
        "node",
        "openai_npm.mjs",
        ("openai (npm)", "openai", f'new OpenAI({{ baseURL: "{V1}", apiKey: "gr-…" }})'),
        (
            "openai AzureOpenAI (npm)",
            "openai",
            f'new AzureOpenAI({{ endpoint: "{ROOT}", apiVersion: "2024-10-21" }})',
        ),
    ),
    *group(
        "node",
        "cohere_npm.mjs",
        (
            "cohere-ai CohereClient (npm)",
            "cohere-ai",
            f'new CohereClient({{ token: "gr-…", environment: "{ROOT}" }})',
        ),
        (
            "cohere-ai CohereClientV2 (npm)",
            "cohere-ai",
            f'new CohereClientV2({{ token: "gr-…", environment: "{ROOT}" }})',
        ),
    ),
    *group(
        "node",
        "voyage_npm.mjs",
        (
            "voyageai (npm)",
            "voyageai",
            f'new VoyageAIClient({{ apiKey: "gr-…", environment: "{V1}" }})',
        ),
    ),
    *group(
        "node",
        "ai_sdk.mjs",
        (
            "AI SDK openai-compatible",
            "@ai-sdk/openai-compatible",
            f'createOpenAICompatible({{ baseURL: "{V1}", apiKey: "gr-…" }})',
        ),
        ("AI SDK cohere", "@ai-sdk/cohere", f'createCohere({{ baseURL: "{ROOT}/v2" }})'),
        (
            "AI SDK voyage-ai-provider",
            "voyage-ai-provider",
            f'createVoyage({{ baseURL: "{V1}" }})',
        ),
    ),
    *group(
        "node",
        "langchain_npm.mjs",
        (
            "@langchain/openai",
            "@langchain/openai",
            f'new OpenAIEmbeddings({{ configuration: {{ baseURL: "{V1}" }} }})',
        ),
        (
            "@langchain/cohere",
            "@langchain/cohere",
            f'client: new CohereClient({{ environment: "{ROOT}" }})',
        ),
        (
            "@langchain/ollama",
            "@langchain/ollama",
            f'new OllamaEmbeddings({{ baseUrl: "{ROOT}" }})',
        ),
    ),
    *group(
        "node",
        "others_npm.mjs",
        (
            "llamaindex.ts OpenAIEmbedding",
            "@llamaindex/openai",
            f'new OpenAIEmbedding({{ baseURL: "{V1}", apiKey: "gr-…" }})',
        ),
        ("ollama (npm)", "ollama", f'new Ollama({{ host: "{ROOT}", headers }})'),
        (
            "@huggingface/inference",
            "@huggingface/inference",
            f'new InferenceClient("gr-…", {{ endpointUrl: "{TEI}" }})',
        ),
    ),
    *group(
        "promptfoo",
        "promptfoo.mjs",
        (
            "promptfoo",
            "promptfoo",
            f'embedding: {{id: openai:embedding:MODEL, config: {{apiBaseUrl: "{V1}", apiKey: gr-…}}}}',
        ),
    ),
]

ALIASES = {
    "sentence-transformers/all-MiniLM-L6-v2": ["all-minilm-l6-v2", "embed-english-v3.0"],
}
"""Other names of the models while the clients are tried: some clients know only their own names."""

INFINITY = "it wants bare strings as `results[].document`, where Cohere's and Jina's clients want objects with `text`; with `return_documents=False` it works"
KNOWN: dict[str, str] = {
    "litellm infinity/: rerank()": INFINITY,
    "litellm infinity/: rerank(), top_n, return_documents": INFINITY,
    "llama-index voyageai: wrong key": "voyageai 0.3.7, which it pins, stumbles over any error body that has `error`",
}
"""Steps ("client: step") that may fail, and why that is not ours to mend."""
