"""Footprint: how much memory a model takes once it is loaded.

Owns the estimate, from the header alone: the weights, the vocabularies, and each worker's context.
Contexts count as they are after their longest sequences: until then they take less.
"""

from appliance.catalog.capacity import (
    Room,
    context_bytes,
    vocabulary_size,
)
from appliance.catalog.header import Header
from appliance.engine.model_limits import engine_limits

WORKERS = 2
"""Contexts that are assumed for a model that was not measured on this machine yet."""
TOKEN_BYTES = 500
"""What an entry of the vocabulary takes in llama.cpp and in the tokenizer."""
PROCESS_BYTES = 8 * 1024 * 1024
"""What graphs and threads take, whatever the model."""


def footprint(header: Header, *, pooling: str, room: Room, workers: int = WORKERS) -> int:
    """Return the bytes of a loaded model."""
    limits = engine_limits(header, pooling=pooling, room=room)

    def context(tokens: int) -> int:
        return context_bytes(header, pooling=pooling, tokens=tokens, room=room)

    side = limits.side_tokens_max or limits.ubatch_tokens_max
    contexts = context(limits.ubatch_tokens_max) + (workers - 1) * context(side)
    return header.file_size + PROCESS_BYTES + TOKEN_BYTES * vocabulary_size(header) + contexts
