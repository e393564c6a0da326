"""Footprint: how much memory a model takes once it is loaded.

Owns the estimate, from the header alone: the weights, the vocabularies, and each worker's context.
Contexts count as they are after their longest sequences: until then they take less.
"""

from appliance.catalog.capacity import Room, context_bytes
from appliance.catalog.header import Header
from appliance.engine.model_limits import engine_limits, fixed_bytes
from appliance.engine.tuning import Tuning, default_tuning

USUAL = default_tuning(cores=2)
"""What is assumed where nobody says how a model is spread over the cores."""


def footprint(header: Header, *, pooling: str, room: Room, tuning: Tuning = USUAL) -> int:
    """Return the bytes of a loaded model."""
    limits = engine_limits(header, pooling=pooling, room=room)

    def context(worker: int) -> int:
        tokens = tuning.worker_limits(limits, worker=worker).ubatch_tokens_max
        return context_bytes(header, pooling=pooling, tokens=tokens, room=room)

    contexts = context(0) + (tuning.workers - 1) * context(1)  # all but the first are alike
    return fixed_bytes(header) + contexts
