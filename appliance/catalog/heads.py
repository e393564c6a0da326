"""Heads: which model files can score a pair as they were meant to.

Owns what is told of that from a header: the kind of the model and its classification head.
"""

from appliance.catalog.capacity import is_decoder
from appliance.catalog.header import Header

PAIRS = {("bert", "bert"): 1, ("bert", "t5"): 2, ("modern-bert", "gpt2"): 1}
"""Architecture and tokenizer of the cross-encoders that are served, as GGUF spells them, and how
many separators stand between the texts of a pair: BERT, XLM-RoBERTa, ModernBERT."""
JUDGED_LABELS = ["yes", "no"]
"""What the head of Qwen3-Reranker says, the score first."""


def kind_of(header: Header) -> tuple[str, str]:
    """Return the architecture and the kind of tokenizer."""
    return header.architecture, header.get_str("tokenizer.ggml.model", "")


def has_head(header: Header) -> bool:
    """Say whether the file has anything that gives scores."""
    return "cls.weight" in header.tensors or "cls.output.weight" in header.tensors


def rank_reason(header: Header) -> str | None:
    """Return why a file cannot score pairs, or None if it can."""
    if not has_head(header):
        return "it has no classification head; it cannot rerank"
    if is_decoder(header):
        return _judge_reason(header)
    if kind_of(header) not in PAIRS:
        kind = " with a tokenizer of kind ".join(kind_of(header))
        return f"rerankers of {kind} are not served; BERT's, XLM-R's and ModernBERT's are"
    return _label_reason(header)


def _judge_reason(header: Header) -> str | None:
    if header.architecture != "qwen3" or "cls.output.weight" not in header.tensors:
        return f"rerankers of {header.architecture} are not served; Qwen3's with a head are"
    labels = header.get_strings(f"{header.architecture}.classifier.output_labels")
    if [label.lower() for label in labels] != JUDGED_LABELS:
        return f"its head says {list(labels)[:5]}; Qwen3-Reranker's says {JUDGED_LABELS}"
    return None


def _label_reason(header: Header) -> str | None:
    output = header.tensors.get("cls.output.weight")
    if output is not None and len(output.shape) > 1 and output.shape[0] > 1:
        return f"its head tells {output.shape[0]} labels apart; a reranker's has one score"
    return None
