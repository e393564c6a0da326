"""Tuning: how a model is spread over this machine's cores.

Owns the numbers, the file beside the model that keeps them, and when a kept one no longer holds.
"""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from appliance import machine
from appliance.catalog.spec import ModelSpec
from appliance.engine.backend import EngineLimits

PLAIN_TOKENS_MAX = 1024
"""Tokens of a context up to which the plain attention may be chosen: it keeps a number for each
head and pair of tokens, which is 4 GB for 8,192 tokens and 16 heads."""
SCHEMA = 1

Count = Annotated[int, msgspec.Meta(ge=1)]


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers a model has, and how each of them computes."""

    workers: Count
    """Contexts, each with a thread of its own."""
    threads: Count
    """Threads with which each worker computes while others compute too."""
    threads_alone: Count
    """Threads with which a worker computes a call alone: when nothing else waits or runs."""
    max_batch_tokens: Count
    """Tokens at which a batch is closed."""
    flash_attention: bool | None
    """None: the library decides."""
    origin: Literal["default", "calibrated", "settings"]
    """Where the numbers come from."""

    def worker_limits(self, limits: EngineLimits, *, worker: int) -> EngineLimits:
        """Return what a worker's backend may take: all but the first may take less."""
        max_batch_tokens = min(self.max_batch_tokens, limits.ubatch_tokens_max)
        ubatch = limits.ubatch_tokens_max
        if worker > 0 and limits.side_tokens_max:
            ubatch = min(ubatch, max(max_batch_tokens, limits.side_tokens_max))
        return replace(
            limits, ubatch_tokens_max=ubatch, max_batch_tokens=max_batch_tokens, side_tokens_max=0
        )

    def capped(self, limits: EngineLimits) -> EngineLimits:
        """Return a backend's limits, with batches closed where this tuning closes them."""
        if limits.max_batch_tokens <= self.max_batch_tokens:
            return limits
        return replace(limits, max_batch_tokens=self.max_batch_tokens)

    def attention(self, limits: EngineLimits) -> bool | None:
        """Return whether a backend with these limits uses flash attention; None: as llama.cpp."""
        is_long = limits.ubatch_tokens_max > PLAIN_TOKENS_MAX
        return None if is_long and self.flash_attention is False else self.flash_attention


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file beside a model."""

    schema: int
    fingerprint: str
    tuning: Tuning


WORKERS_MAX = 8
"""Workers at most. More contexts cost memory and gain nothing: with more cores, each worker has
several threads."""
MAX_BATCH_TOKENS = 256


def default_tuning(cores: int) -> Tuning:
    """Return what is right on most machines: a worker with one thread for each core."""
    workers = min(cores, WORKERS_MAX)
    return Tuning(
        workers=workers,
        threads=max(1, cores // workers),
        threads_alone=cores,
        max_batch_tokens=MAX_BATCH_TOKENS,
        flash_attention=None,
        origin="default",
    )


def fingerprint(model: Path, *, pooling: str, cores: int, library: str) -> str:
    """Return what a calibration holds for: a file, on this processor, with this library."""
    stat = model.stat()
    file = (model.name, stat.st_size, stat.st_mtime_ns)
    facts = (*file, pooling, cores, library, machine.processor())
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def tuning_path(tunings: Path, spec: ModelSpec) -> Path:
    """Return where a model's calibration is remembered."""
    return tunings / f"{spec.path.name}.tuning.json"


def recall(path: Path, expected: str) -> Tuning | None:
    """Return the remembered tuning, or None if there is none that holds."""
    found = _decoded(path)
    return found.tuning if found is not None and found.fingerprint == expected else None


def read(path: Path) -> Tuning | None:
    """Return the remembered tuning, whatever machine it was found for, or None."""
    found = _decoded(path)
    return found.tuning if found is not None else None


def _decoded(path: Path) -> Remembered | None:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Remembered)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.schema == SCHEMA else None


def remember(path: Path, tuning: Tuning, found_for: str) -> None:
    """Write the tuning; readers see the old file or the new one, whole.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(Remembered(SCHEMA, found_for, tuning)))
    draft.replace(path)
