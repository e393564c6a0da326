"""Segments: token types, for models that mark the second of two texts.

Owns the rows that replace token ids. llama.cpp adds token type 0 to every token (its BERT graph has
no other), so the rows are looked up and corrected here, and passed as embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.engine.vectors import Matrix
from appliance.sequences.sequence import TokenSequence


@dataclass(frozen=True, slots=True)
class Segments:
    """What a model adds for its second segment."""

    token_rows: Matrix
    """The embedding of every token, float32[n_vocab, n_embd]."""
    type_difference: npt.NDArray[np.float32]
    """Token type 1 less token type 0, float32[n_embd]."""

    def require_width(self, n_embd: int) -> None:
        """Check that the rows are as wide as the library will read."""
        assert self.token_rows.dtype == self.type_difference.dtype == np.float32
        assert self.token_rows.shape[1] == len(self.type_difference) == n_embd

    def rows(self, sequences: Sequence[TokenSequence], tokens: npt.NDArray[np.int32]) -> Matrix:
        """Return one row for each of `tokens`, which are the sequences' own, laid end to end.

        The graph adds type 0 to every row; adding (type 1 - type 0) first makes it type 1.
        """
        rows: Matrix = self.token_rows[tokens]
        start = 0
        for sequence in sequences:
            end = start + len(sequence)
            rows[start + sequence.segment_b : end] += self.type_difference
            start = end
        return np.ascontiguousarray(rows)
