"""Vectors: arithmetic on the matrices that come out of an engine.

Owns normalisation, truncation, similarity and the writing of vectors. Pure numpy; holds no state.
"""

import base64
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
"""float32[n_rows, width]"""


def l2_normalise(matrix: Matrix) -> Matrix:
    """Return rows of length 1, float32[n_rows, width]; a row of zeros stays zeros."""
    # Half the time of numpy's own norm on a single row, which is what most calls have.
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))[:, None]
    unit: Matrix = np.divide(matrix, norms, out=np.zeros_like(matrix), where=norms != 0)
    return unit


def truncate_dimensions(matrix: Matrix, dimensions: int) -> Matrix:
    """Return the first `dimensions` numbers of each row, normalised again.

    This is how Matryoshka models are meant to be shortened (arXiv:2205.13147).
    """
    return l2_normalise(np.ascontiguousarray(matrix[:, :dimensions]))


def mean_of_windows(matrix: Matrix, weights: Sequence[int], counts: Sequence[int]) -> Matrix:
    """Return one vector of length 1 for each text from those of its windows.

    `matrix` is float32[n_windows, width] with the windows of a text one after the other, `weights`
    are each window's tokens without special ones, and `counts` the windows of each text. Each
    window counts by its direction, weighted by its tokens: the mean that OpenAI's cookbook gives
    for texts that are longer than a model takes ("Embedding texts that are longer than the model's
    maximum context length"), and that LangChain computes in the client. A text that is one window
    keeps its own vector, whatever it weighs.
    """
    assert len(matrix) == len(weights) == sum(counts)
    assert all(count > 0 for count in counts)
    # Of windows without tokens there is one, which must not weigh nothing.
    weighted = l2_normalise(matrix) * np.maximum(1, np.asarray(weights, np.float32))[:, None]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
    return l2_normalise(np.add.reduceat(weighted, starts, axis=0))


def cosine_to_first(matrix: Matrix) -> npt.NDArray[np.float32]:
    """Return the cosine of the first row with each of the others, float32[n_rows - 1]."""
    unit = l2_normalise(matrix)
    similar: npt.NDArray[np.float32] = unit[1:] @ unit[0]
    return similar


def sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return 1 / (1 + e^-x), float64, without overflow for any finite x."""
    # tanh saturates where exp would overflow.
    squashed: npt.NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
    return squashed


def to_base64(row: npt.NDArray[np.float32]) -> str:
    """Return little-endian float32 bytes as base64, as the OpenAI SDK decodes them."""
    return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode("ascii")
