"""Reference: the vector of each text, computed alone, one after the other, on one thread.

Owns what packing, workers, sharing and HTTP are held to. It goes through none of them: only the
loader, the tokenizer and the engine's own call are the server's.
"""

from collections.abc import Sequence

import numpy as np

from appliance.bench import golden
from appliance.engine.vectors import Matrix, l2_normalise
from tests.server import EMBED


def vectors_of(texts: Sequence[str]) -> tuple[Matrix, list[int]]:
    """Return float32[n_texts, dimensions], rows of length 1, and each text's tokens."""
    rows, tokens = golden.vectors_of(EMBED, texts)
    return l2_normalise(rows), tokens


def cosines(rows: Matrix, expected: Matrix) -> np.ndarray:
    """Return the cosine of each row with the row expected in its place, float64[n_rows]."""
    given = rows.astype(np.float64)
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    wanted = expected.astype(np.float64)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found: np.ndarray = np.einsum("ij,ij->i", given, wanted)
    return found
