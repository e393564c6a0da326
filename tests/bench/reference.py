"""Reference: the vector of each text, computed alone, one after the other, on one thread.

Owns what packing, workers, sharing and HTTP are held to. It goes through none of them: only the
loader, the tokenizer and the engine's own call are the server's.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from appliance.catalog.catalog import load, shipped_path
from appliance.core.clock import SystemClock
from appliance.engine.loader import LlamaLoader
from appliance.engine.vectors import Matrix, l2_normalise
from appliance.sequences.sequence import frame_single
from appliance.settings import EngineSettings
from tests.server import EMBED


def vectors_of(texts: Sequence[str]) -> tuple[Matrix, list[int]]:
    """Return float32[n_texts, dimensions], rows of length 1, and each text's tokens."""
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(nowhere)
        spec = load(shipped_path(), folder / "models.toml", folder).find(EMBED)
    loader = LlamaLoader(
        EngineSettings(calibrate=False), cores=1, tunings=None, clock=SystemClock()
    )
    encoder = loader.open_encoder(spec)
    weights = loader.open_weights(spec)
    backend = weights.open_backend(weights.limits, flash_attention=None)
    rows, tokens = [], []
    for tokenized in encoder.tokenizer.encode(list(texts)):
        sequence = frame_single(tokenized, encoder.frame, tokens_max=spec.entry.max_input_tokens)
        # A copy: a backend may return rows of its own memory.
        rows.append(np.array(backend.compute([sequence], threads=1)[0]))
        tokens.append(len(sequence))
    backend.close()
    weights.close()
    return l2_normalise(np.stack(rows)), tokens


def cosines(rows: Matrix, expected: Matrix) -> np.ndarray:
    """Return the cosine of each row with the row expected in its place, float64[n_rows]."""
    given = rows.astype(np.float64)
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    wanted = expected.astype(np.float64)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found: np.ndarray = np.einsum("ij,ij->i", given, wanted)
    return found
