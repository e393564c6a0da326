"""Footprint: how much memory a model takes once it is loaded.

Owns the estimate, from the header alone: the weights, and for each worker the buffers that
llama.cpp reserves whatever is computed (llama-context.cpp, `output_reserve`: logits for every
output, which are all written once and so are resident).
"""

from appliance.catalog.capacity import (
    LAST_POOLINGS,
    UBATCH_TOKENS_MIN,
    cache_bytes,
    is_decoder,
    sequence_tokens_max,
    vocabulary_size,
)
from appliance.catalog.header import Header

FLOAT = 4
"""Bytes."""
WORKERS = 2
"""Contexts that are assumed for a model that was not measured on this machine yet."""
OUTPUTS_MAX = 64
"""Outputs of a decoder that is pooled over its last token: one for each sequence of a batch."""
PROCESS_BYTES = 8 * 1024 * 1024
"""What graphs, threads and the tokenizer take, whatever the model."""


def footprint(header: Header, *, pooling: str, workers: int = WORKERS) -> int:
    """Return the bytes of a loaded model."""
    return header.file_size + PROCESS_BYTES + workers * _context_bytes(header, pooling)


def _context_bytes(header: Header, pooling: str) -> int:
    tokens = max(UBATCH_TOKENS_MIN, sequence_tokens_max(header, pooling=pooling))
    width = header.arch_int("embedding_length")
    inner = header.get_int(f"{header.architecture}.feed_forward_length", 4 * width)
    heads = max(1, header.get_int(f"{header.architecture}.attention.head_count", 1))
    if not is_decoder(header):
        outputs, computed, cache = tokens, tokens, 0
    else:
        outputs = OUTPUTS_MAX if pooling in LAST_POOLINGS else tokens
        computed, cache = min(tokens, 512), tokens * cache_bytes(header)
    logits = FLOAT * outputs * (vocabulary_size(header) + width)
    # The largest buffers of a block: the feed-forward's rows, or the heads' scores of all tokens.
    working = (
        FLOAT * computed * max(3 * inner, heads * min(computed, 512)) + FLOAT * computed * width
    )
    return logits + working + cache
