"""Fit: whether a model has room on the server's machine.

Owns the estimate, which is rough: the server knows the exact need only once it has the file.
"""

from appliance.wire.engines import EngineList
from appliance.wire.models import ModelView

BYTES_A_WEIGHT = {"F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 1.07}
OTHERS = 0.7
"""Bytes a weight of quantizations with four to six bits."""
WORKING = 1.3
"""Factor for the buffers that a model needs beside its weights."""
PROGRAM_BYTES = 100_000_000
FITS, SWAPS, TOO_LARGE, UNKNOWN = "\u2713 fits", "~ swaps", "\u2717 large", "?"
"""There is free memory; there is memory if other models are unloaded; there is not enough."""


def size_of(model: ModelView) -> int:
    """Return the size of a model's file in bytes, estimated if it is not stated; 0: not known."""
    if model.size_bytes:
        return model.size_bytes
    return int(model.params * BYTES_A_WEIGHT.get(model.quantization, OTHERS))


def fit_of(model: ModelView, engines: EngineList) -> str:
    """Return whether a model fits: `FITS`, `SWAPS`, `TOO_LARGE` or `UNKNOWN`."""
    size = size_of(model)
    room = room_of(engines)
    if not size or not room:
        return UNKNOWN
    needed = size * WORKING + PROGRAM_BYTES
    if model.loaded or needed <= room - engines.memory_taken:
        return FITS
    return SWAPS if needed <= room else TOO_LARGE


def room_of(engines: EngineList) -> int:
    """Return how many bytes all models together may take; 0: not known."""
    return engines.memory_max or max((device.memory for device in engines.devices), default=0)


def suggested(models: list[ModelView], engines: EngineList, count: int) -> list[ModelView]:
    """Return up to `count` models to pull: the largest that fits of each task, then small ones."""
    fits = [m for m in models if m.missing and m.params and fit_of(m, engines) == FITS]
    ranked = sorted(fits, key=lambda model: -model.params)
    best = [next((m for m in ranked if m.task == task), None) for task in ("embeddings", "rerank")]
    small = [m for m in reversed(ranked) if m not in best]
    return [model for model in (*best, *small) if model is not None][:count]
