"""ModelLimits: how much one call of the engine may hold, for a model file on this machine."""

from functools import lru_cache
from pathlib import Path

from appliance import machine
from appliance.catalog.capacity import (
    UBATCH_TOKENS_MIN,
    Room,
    context_bytes,
    sequence_tokens_max,
    vocabulary_size,
)
from appliance.catalog.header import Header
from appliance.catalog.headers import header_of
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidModelFile
from appliance.engine.backend import EngineLimits
from appliance.engine.devices import native_keeps_logits
from appliance.engine.isolation import CHILD_BYTES
from appliance.engine.tuning import MAX_BATCH_TOKENS
from appliance.settings import EngineSettings

SEQUENCES_MAX = 64
"""Sequences in one call: llama.cpp keeps state for each, and few batches have more."""
TOKEN_BYTES = 500
"""What an entry of the vocabulary takes in llama.cpp and in the tokenizer."""
PROCESS_BYTES = 8 * 1024 * 1024
"""What graphs and threads take, whatever the model."""
SIDE_CONTEXT_BYTES_MAX = 128 << 20
"""Where the longest sequence takes a context of more than this, only the first worker has one."""
SIDE_TOKENS_MAX = 512
"""Tokens of the longest sequence that the other workers take then."""


def fixed_bytes(header: Header) -> int:
    """Return what a loaded model takes beside its contexts."""
    return header.file_size + PROCESS_BYTES + TOKEN_BYTES * vocabulary_size(header)


def memory_budget(settings: EngineSettings) -> int:
    """Return the bytes that all loaded models together may take."""
    return settings.memory_mb * 1_000_000 or machine.memory_bytes() * 3 // 4


def room_for(header: Header, settings: EngineSettings) -> Room:
    """Return what a context of this model may take: a third of what the model itself leaves.

    The other workers' contexts and a second model must fit beside it.
    """
    process = CHILD_BYTES if settings.isolation != "none" else 0
    left = max(0, memory_budget(settings) - fixed_bytes(header) - process)
    return Room(left // 3, keeps_logits=native_keeps_logits())


def engine_limits(header: Header, *, pooling: str, room: Room) -> EngineLimits:
    """Return how much one call may hold: facts of the file, as models may share its weights."""
    longest = sequence_tokens_max(header, pooling=pooling, room=room)
    ubatch = max(UBATCH_TOKENS_MIN, longest)
    taken = context_bytes(header, pooling=pooling, tokens=ubatch, room=room)
    return EngineLimits(
        ubatch_tokens_max=ubatch,
        max_batch_tokens=MAX_BATCH_TOKENS,
        sequences_max=SEQUENCES_MAX,
        side_tokens_max=0 if taken <= SIDE_CONTEXT_BYTES_MAX else SIDE_TOKENS_MAX,
    )


def served_tokens_max(spec: ModelSpec, settings: EngineSettings) -> int:
    """Return the tokens of the longest sequence that a model takes here, special ones included.

    What its entry says, or less where the file or this machine's memory has room for less.
    """
    promised = spec.entry.max_input_tokens
    try:
        stat = spec.path.stat()
        identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return min(promised, _tokens_max(spec.path, spec.entry.pooling, settings, identity))
    except (OSError, InvalidModelFile):
        return promised  # why it cannot be served is said elsewhere


@lru_cache(maxsize=1024)
def _tokens_max(
    path: Path, pooling: str, settings: EngineSettings, _identity: tuple[int, ...]
) -> int:
    header = header_of(path)
    return sequence_tokens_max(header, pooling=pooling, room=room_for(header, settings))
