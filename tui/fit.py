"""Fit: whether a model has room on the server's machine, and whether that computes it quickly.

Owns the estimates, which are rough: the server knows the exact need only once it has the file.
"""

from appliance.wire.engines import EngineList
from appliance.wire.models import ModelView
from tui import figures

BYTES_A_WEIGHT = {"F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 1.07}
OTHERS = 0.7
"""Bytes a weight of quantizations with four to six bits."""
WORKING = 1.3
"""Factor for the buffers that a model needs beside its weights."""
PROGRAM_BYTES = 100_000_000
WEIGHTS_A_CORE = 150_000_000
"""Weights of a model of which one core computes about a hundred tokens a second."""
CORES = 4
"""Cores of a server that does not say how many it has."""
GRAPHICS = ("gpu", "accelerator")
"""Kinds of devices that are no matter of cores; a processor's own graphics are."""
FITS, TIGHT, SLOW, TOO_LARGE, UNKNOWN = "\u2713 fits", "~ tight", "~ slow", "\u2717 large", "?"
"""There is room and speed; room if other models are unloaded; room and no speed; no room."""


def size_of(model: ModelView) -> int:
    """Return the size of a model's file in bytes, estimated if it is not stated; 0: not known."""
    if model.size_bytes:
        return model.size_bytes
    return int(model.params * BYTES_A_WEIGHT.get(model.quantization, OTHERS))


def fit_of(model: ModelView, engines: EngineList) -> str:
    """Return whether a model fits: `FITS`, `TIGHT`, `SLOW`, `TOO_LARGE` or `UNKNOWN`."""
    needed, room = _needed(model), room_of(engines)
    if not needed or not room:
        return UNKNOWN
    if not model.loaded and needed > room:
        return TOO_LARGE
    if is_slow(model, engines):
        return SLOW
    return FITS if model.loaded or needed <= room - engines.memory_taken else TIGHT


def room_of(engines: EngineList) -> int:
    """Return how many bytes all models together may take; 0: not known."""
    return engines.memory_max or max((device.memory for device in engines.devices), default=0)


def is_slow(model: ModelView, engines: EngineList) -> bool:
    """Return whether a text takes seconds: a large model that no graphics card has room for."""
    if any(d.kind in GRAPHICS and _needed(model) <= d.memory for d in engines.devices):
        return False
    return model.params > (engines.cores or CORES) * WEIGHTS_A_CORE


def explained(model: ModelView, engines: EngineList) -> str:
    """Return what `fit_of` found in words; empty: nothing stands against the model."""
    needed, room = figures.size(_needed(model)), figures.size(room_of(engines))
    cores = f"{engines.cores or 'few'} core{'s' * (engines.cores != 1)}"
    return {
        TIGHT: f"It needs about {needed}: other models leave the memory for it",
        SLOW: f"A text probably takes seconds: {cores} and no graphics card that has room for it",
        TOO_LARGE: f"It needs about {needed}, and models may take {room}",
    }.get(fit_of(model, engines), "")


def suggested(models: list[ModelView], engines: EngineList, count: int) -> list[ModelView]:
    """Return up to `count` models to pull: the largest that fits of each task, then small ones."""
    fits = [m for m in models if m.missing and m.params and fit_of(m, engines) == FITS]
    ranked = sorted(fits, key=lambda model: -model.params)
    best = [next((m for m in ranked if m.task == task), None) for task in ("embeddings", "rerank")]
    small = [m for m in reversed(ranked) if m not in best]
    return [model for model in (*best, *small) if model is not None][:count]


def _needed(model: ModelView) -> int:
    """Return the memory that a model needs, in bytes; 0: not known."""
    size = size_of(model)
    return int(size * WORKING) + PROGRAM_BYTES if size else 0
