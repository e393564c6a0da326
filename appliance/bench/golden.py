"""Golden: whether the engine that is loaded computes what the model's authors computed.

    python -m appliance.bench.golden

Prints one JSON document. In a process of its own, because an engine that is wrong for this machine
may end the process; `appliance/native/staging.py` runs it before it puts another engine into place.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from appliance import settings
from appliance.catalog.catalog import load, shipped_path
from appliance.core.clock import SystemClock
from appliance.engine.devices import native_facts
from appliance.engine.loader import LlamaLoader
from appliance.engine.vectors import Matrix
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
    """Compute the reference's texts and hold each vector against the one that is known."""
    reference = msgspec.json.decode(path.read_bytes(), type=_Reference)
    rows, _ = vectors_of(reference.model, [item.text for item in reference.items])
    found = rows.astype(np.float64)
    expected = np.array([item.embedding for item in reference.items])
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = np.einsum("ij,ij->i", found, expected) / lengths
    return Golden(cosine=float(np.min(cosines)), facts=native_facts())


def vectors_of(model: str, texts: Sequence[str]) -> tuple[Matrix, list[int]]:
    """Return each text's vector, computed alone, one after the other, on one thread; its tokens.

    float32[n_texts, dimensions], as the engine gives them. The model is one that ships.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(nowhere)
        spec = load(shipped_path(), folder / "models.toml", folder).find(model)
    loader = LlamaLoader(
        settings.EngineSettings(calibrate=False), cores=1, tunings=None, clock=SystemClock()
    )
    encoder = loader.open_encoder(spec)
    weights = loader.open_weights(spec)
    backend = weights.open_backend(weights.limits, flash_attention=None)
    rows, tokens = [], []
    try:
        for tokenized in encoder.tokenizer.encode(list(texts)):
            limit = spec.entry.max_input_tokens
            sequence = frame_single(tokenized, encoder.frame, tokens_max=limit)
            # A copy: a backend may return rows of its own memory.
            rows.append(np.array(backend.compute([sequence], threads=1)[0]))
            tokens.append(len(sequence))
    finally:
        backend.close()
        weights.close()
    return np.stack(rows), tokens


if __name__ == "__main__":
    settings.prepare_native_library()
    json.dump(msgspec.to_builtins(check()), sys.stdout)
