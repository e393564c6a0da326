"""Prompt: the words that a model was trained to see beside a text.

Owns how a query, a document and an instruction become the text that is tokenized. It tokenizes
nothing: special tokens are put around by their ids, so that no text can spell one.
"""

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""What Qwen3-Reranker was trained with when nothing else is asked
(huggingface.co/Qwen/Qwen3-Reranker-0.6B)."""


def query_text(query: str, instruction: str | None) -> str:
    """Return the text of a pair up to its document, in the words of Qwen3-Reranker."""
    return f"<Instruct>: {instruction or INSTRUCTION}\n<Query>: {query}\n<Document>: "
