"""ModelLimits: how much one call of the engine may hold, for a model file."""

from appliance.catalog.capacity import UBATCH_TOKENS_MIN, sequence_tokens_max
from appliance.catalog.header import Header
from appliance.engine.backend import EngineLimits
from appliance.engine.tuning import MAX_BATCH_TOKENS

SEQUENCES_MAX = 64
"""Sequences in one call: llama.cpp keeps state for each, and few batches have more."""


def engine_limits(header: Header, *, pooling: str) -> EngineLimits:
    """Return how much one call may hold: facts of the file, as models may share its weights."""
    return EngineLimits(
        ubatch_tokens_max=max(UBATCH_TOKENS_MIN, sequence_tokens_max(header, pooling=pooling)),
        max_batch_tokens=MAX_BATCH_TOKENS,
        sequences_max=SEQUENCES_MAX,
    )
