"""Fit: whether a model has room on the server's machine.

Owns the estimate. It is rough: the server knows a file's needs once it has the file.
"""

from appliance.wire.engines import EngineList
from appliance.wire.models import ModelView

BYTES_A_WEIGHT = {"F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 1.07}
OTHERS = 0.7
"""Of kinds of four to six bits."""
WORKING = 1.3
"""Weights, and the buffers beside them."""
PROGRAM_BYTES = 100_000_000
FITS, SWAPS, TOO_LARGE, UNKNOWN = "\u2713 fits", "~ swaps", "\u2717 large", "?"
"""Room is free; there is room if others leave; there is none."""


def size_of(model: ModelView) -> int:
    """Return the bytes of a model's file, estimated where nobody says; 0: not known."""
    if model.size_bytes:
        return model.size_bytes
    return int(model.params * BYTES_A_WEIGHT.get(model.quantization, OTHERS))


def fit_of(model: ModelView, engines: EngineList) -> str:
    """Return whether it fits: one of the four words."""
    size = size_of(model)
    room = room_of(engines)
    if not size or not room:
        return UNKNOWN
    needed = size * WORKING + PROGRAM_BYTES
    if model.loaded or needed <= room - engines.memory_taken:
        return FITS
    return SWAPS if needed <= room else TOO_LARGE


def room_of(engines: EngineList) -> int:
    """Return the bytes that all models may take; 0: not known."""
    return engines.memory_max or max((device.memory for device in engines.devices), default=0)


def suggested(models: list[ModelView], engines: EngineList, count: int) -> list[ModelView]:
    """Return models to pull: the largest of each task that fits, then the smallest ones."""
    fits = [m for m in models if m.missing and m.params and fit_of(m, engines) == FITS]
    ranked = sorted(fits, key=lambda model: -model.params)
    best = [next((m for m in ranked if m.task == task), None) for task in ("embeddings", "rerank")]
    small = [m for m in reversed(ranked) if m not in best]
    return [model for model in (*best, *small) if model is not None][:count]
