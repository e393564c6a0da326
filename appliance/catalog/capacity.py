"""Capacity: how many tokens a sequence of a model file may have in this program.

Owns the one number that truncation, the engine's buffers and the catalogue must agree on: a
sequence longer than the engine's ubatch would abort the process.
"""

from appliance.catalog.header import Header

DECODERS = frozenset({"llama", "qwen2", "qwen3"})
"""Served architectures with a KV cache, as GGUF spells them."""
LAST_POOLINGS = frozenset({"last", "rank"})
"""Poolings that read only the last token of a decoder's sequence."""
UBATCH_TOKENS_MIN = 256
"""Tokens of the smallest ubatch: room for several short sequences, whatever the model's limit."""
OUTPUT_BYTES_MAX = 1 << 30
"""Bytes of logits, which llama.cpp reserves for every token of a ubatch even where a model has none
(4 for each entry of the vocabulary). Bounds the sequences of models with large vocabularies, except
a decoder that is pooled over its last token: the engine needs no logits of the others."""
CACHE_BYTES_MAX = 1 << 29
"""Bytes of keys and values, which a decoder's context keeps for each token of the longest
sequence."""

_CACHED = ("attn_k.weight", "attn_v.weight", "attn_qkv.weight")


def vocabulary_size(header: Header) -> int:
    """Return the number of token ids in the file's vocabulary."""
    return len(header.get_list("tokenizer.ggml.tokens"))


def is_decoder(header: Header) -> bool:
    """Say whether the model computes with a KV cache."""
    return header.architecture in DECODERS


def is_causal(header: Header) -> bool:
    """Say whether each token sees only those before it, as a served decoder's tokens do."""
    return header.get_bool(f"{header.architecture}.attention.causal", default=True)


def sequence_tokens_max(header: Header, *, pooling: str) -> int:
    """Return the tokens of the longest sequence, special ones included.

    What the model was trained for, unless the engine's buffers for it would be too large.
    """
    trained = affordable = header.arch_int("context_length")
    if not is_decoder(header) or pooling not in LAST_POOLINGS:
        affordable = min(affordable, OUTPUT_BYTES_MAX // (4 * max(1, vocabulary_size(header))))
    if is_decoder(header):
        affordable = min(affordable, CACHE_BYTES_MAX // max(1, cache_bytes(header)))
    return min(trained, max(UBATCH_TOKENS_MIN, affordable))


def cache_bytes(header: Header) -> int:
    """Return the bytes of one token's keys and values in all blocks, two for each number."""
    tensors = header.tensors.values()
    return sum(2 * tensor.shape[0] for tensor in tensors if tensor.name.endswith(_CACHED))
