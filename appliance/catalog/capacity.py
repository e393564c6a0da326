"""Capacity: how long a sequence a model file can take on this program.

Owns the one number that truncation, the engine's buffers and the catalogue must agree on: a text
cut to more than the engine's ubatch would kill it.
"""

from appliance.catalog.header import Header

DECODERS = frozenset({"llama", "qwen2", "qwen3"})
"""Served architectures with a KV cache, as GGUF spells them."""
LAST_POOLINGS = frozenset({"last", "rank"})
"""Those that read a decoder's last token alone."""
UBATCH_TOKENS_MIN = 256
"""Room for a batch of several short sequences, whatever the model's own limit."""
OUTPUT_BYTES_MAX = 1 << 30
"""llama.cpp reserves logits for every token of a ubatch, also where there are none (4 bytes for
each entry of the vocabulary): bounds the sequences of models with large vocabularies, except a
decoder's that is pooled over its last token: the engine asks for no logits of the others."""
CACHE_BYTES_MAX = 1 << 29
"""A decoder's context keeps keys and values for each token of the longest sequence."""

_CACHED = ("attn_k.weight", "attn_v.weight", "attn_qkv.weight")


def vocabulary_size(header: Header) -> int:
    """Return how many token ids the file knows."""
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
