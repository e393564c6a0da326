"""Vectors: arithmetic on the matrices that come out of an engine.

Owns normalisation, truncation, similarity and the writing of vectors. Pure numpy; holds no state.
"""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.wire.questions import VectorType

Matrix = npt.NDArray[np.float32]
"""float32[n_rows, width]"""
Vectors = npt.NDArray[Any]
"""Rows of any kind of numbers."""
INT8_RANGE = 6.0
"""The largest number of a row that int8 holds, in units of what each is in a row of equal ones."""


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
    are each window's tokens, and `counts` the windows of each text. Each
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


def in_type(unit: Matrix, kind: VectorType) -> Vectors:
    """Return rows of length 1 in another kind of numbers, one row for each.

    int8 is `round(x * 127 * max(1, sqrt(width) / 6))` within ±127, uint8 the same plus 128: there
    is room for numbers up to six times as large as in a row of equal ones, and rows of one width
    share a scale, so that their products compare. binary and ubinary have a bit for each number,
    whether it is above 0, the first in the highest bit; ubinary as uint8, binary as the same less
    128 in int8 (offset binary, as Cohere, Voyage and sentence-transformers have it). A last byte is
    filled up with zeros.
    """
    if kind == "float":
        return unit
    if kind == "float16":
        return unit.astype(np.float16)
    if kind in {"int8", "uint8"}:
        scale = 127 / min(1.0, INT8_RANGE / math.sqrt(unit.shape[1]))
        numbers: Vectors = np.clip(np.rint(unit * np.float32(scale)), -127, 127)
        return numbers.astype(np.int8) if kind == "int8" else (numbers + 128).astype(np.uint8)
    bits: Vectors = np.packbits(unit > 0, axis=1)
    return bits if kind == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)


def to_base64(row: Vectors) -> str:
    """Return the little-endian bytes of a row as base64; float32's is what OpenAI's SDK decodes."""
    little = row.astype(row.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")
