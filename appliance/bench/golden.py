"""Golden: whether the engine that is loaded computes what the model's authors computed.

    python -m appliance.bench.golden

Prints one JSON document. In a process of its own, because an engine that is wrong for this machine
may end the process; `appliance/native/staging.py` runs it before it puts another engine into place.
"""

import json
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from appliance import settings
from appliance.catalog.catalog import load, shipped_path
from appliance.core.clock import SystemClock
from appliance.engine.devices import native_facts
from appliance.engine.loader import LlamaLoader
from appliance.sequences.sequence import frame_single

VECTORS = Path(__file__).parents[1] / "starter/golden.json"
"""Of the starter model: seven texts and their vectors by sentence-transformers in float32."""


class _Item(msgspec.Struct):
    text: str
    embedding: list[float]


class _Reference(msgspec.Struct):
    model: str
    items: list[_Item]


class Golden(msgspec.Struct, frozen=True):
    """What an engine computed: the lowest cosine similarity with the reference, and its facts."""

    cosine: float
    facts: dict[str, str]


def check(path: Path = VECTORS) -> Golden:
    """Compute the reference's texts alone, one after the other, on one thread."""
    reference = msgspec.json.decode(path.read_bytes(), type=_Reference)
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(nowhere)
        spec = load(shipped_path(), folder / "models.toml", folder).find(reference.model)
    loader = LlamaLoader(
        settings.EngineSettings(calibrate=False), cores=1, tunings=None, clock=SystemClock()
    )
    encoder = loader.open_encoder(spec)
    weights = loader.open_weights(spec)
    backend = weights.open_backend(weights.limits, flash_attention=None)
    cosines = []
    try:
        tokens = encoder.tokenizer.encode([item.text for item in reference.items])
        for item, tokenized in zip(reference.items, tokens, strict=True):
            limit = spec.entry.max_input_tokens
            sequence = frame_single(tokenized, encoder.frame, tokens_max=limit)
            row = np.asarray(backend.compute([sequence], threads=1)[0], np.float64)
            expected = np.array(item.embedding)
            lengths = np.linalg.norm(row) * np.linalg.norm(expected)
            cosines.append(float(row @ expected / lengths))
    finally:
        backend.close()
        weights.close()
    return Golden(cosine=float(np.min(cosines)), facts=native_facts())


if __name__ == "__main__":
    settings.prepare_native_library()
    json.dump(msgspec.to_builtins(check()), sys.stdout)
