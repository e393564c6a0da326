"""Capacity: how many tokens a sequence of a model file may have, and what its context takes.

Owns the one number that truncation, the engine's buffers and the catalogue must agree on: a
sequence longer than the engine's ubatch would abort the process. The bytes are those that llama.cpp
reserves (llama-context.cpp, `sched_reserve` and `output_reserve`), checked against what it says of
its buffers for twenty shapes: `tests.bench.sizes`.
"""

from bisect import bisect_right
from dataclasses import dataclass

from appliance.catalog.header import Header

DECODERS = frozenset({"gemma3", "llama", "qwen2", "qwen3"})
"""Served architectures with a KV cache, as GGUF spells them."""
GATED = frozenset(
    {"modern-bert", "nomic-bert", "jina-bert-v2", "eurobert", "neo-bert", "gemma-embedding"}
)
"""Encoders whose feed-forward multiplies two projections."""
WINDOWED = frozenset({"modern-bert", "gemma-embedding", "gemma3"})
"""Architectures some of whose blocks see a window of tokens alone."""
LAST_POOLINGS = frozenset({"last", "rank"})
"""Poolings that read only the last token of a decoder's sequence."""
UBATCH_TOKENS_MIN = 256
"""Tokens of the smallest ubatch: room for several short sequences, whatever the model's limit."""
DECODER_UBATCH_TOKENS = 512
"""Tokens of the pieces into which llama.cpp cuts a longer call of a decoder that is pooled over its
last token; bounds its working memory."""
OUTPUTS_MAX = 64
"""Outputs of such a decoder: one for each sequence of a batch."""
FLOAT, HALF = 4, 2
"""Bytes."""
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


@dataclass(frozen=True, slots=True)
class Room:
    """What the contexts of this machine's engine may take."""

    context_bytes: int
    """The most that one context may take: bounds the longest sequence."""
    keeps_logits: bool
    """True: a context keeps logits of every output even where nobody reads them, as llama.cpp does
    without our change (appliance/native/engine.cmake)."""


def sequence_tokens_max(header: Header, *, pooling: str, room: Room) -> int:
    """Return the tokens of the longest sequence, special ones included.

    What the model was trained for, unless the engine's buffers for it would be too large.
    """
    trained = header.arch_int("context_length")
    if context_bytes(header, pooling=pooling, tokens=trained, room=room) <= room.context_bytes:
        return trained
    return min(trained, max(UBATCH_TOKENS_MIN, _affordable(header, pooling, trained, room)))


def _affordable(header: Header, pooling: str, trained: int, room: Room) -> int:
    """Return the most tokens whose context is small enough."""
    sizes = range(1, trained + 1)
    return bisect_right(
        sizes,
        room.context_bytes,
        key=lambda tokens: context_bytes(header, pooling=pooling, tokens=tokens, room=room),
    )


def context_bytes(header: Header, *, pooling: str, tokens: int, room: Room) -> int:
    """Return what one context takes that computes sequences of so many tokens."""
    width = header.arch_int("embedding_length")
    inner = header.get_int(f"{header.architecture}.feed_forward_length", 4 * width)
    # Which token sees which: a mask, and one more for a window.
    masks = 2 if header.architecture in WINDOWED else 1
    if not is_decoder(header):
        # Rows of the largest block.
        gated = 3 if header.architecture in GATED else 1
        rows = FLOAT * tokens * max(gated * inner + 3 * width, 11 * width // 2)
        outputs = FLOAT * tokens * (width + (vocabulary_size(header) if room.keeps_logits else 0))
        return rows + masks * HALF * tokens * tokens + outputs
    is_cut = pooling in LAST_POOLINGS
    ubatch = min(tokens, DECODER_UBATCH_TOKENS) if is_cut else tokens
    count = min(tokens, OUTPUTS_MAX) if is_cut else tokens
    logits = FLOAT * count * vocabulary_size(header)
    # Each output is multiplied with the whole vocabulary before it is pooled.
    working = max(FLOAT * ubatch * (3 * inner + 4 * width), logits)
    kept = (logits if room.keeps_logits else 0) + FLOAT * count * width
    # The cache is as long as the longest sequence from the start, in blocks with a window too: with
    # so many sequences in one context, theirs would be no shorter.
    return working + masks * HALF * ubatch * tokens + kept + tokens * cache_bytes(header)


def cache_bytes(header: Header) -> int:
    """Return the bytes of one token's keys and values in all blocks, two for each number."""
    tensors = header.tensors.values()
    return sum(2 * tensor.shape[0] for tensor in tensors if tensor.name.endswith(_CACHED))
