"""Batch: sequences in the layout that llama.cpp reads.

Owns the arrays behind `llama_batch`, allocated once and filled by slices. Deliberately checks
nothing: whoever fills them has.
"""

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.engine.llama.library import pointer
from appliance.engine.vectors import Matrix
from appliance.tasks.sequence import TokenSequence


class BatchArrays:
    """The arrays of one context."""

    def __init__(self, tokens_max: int) -> None:
        self.token = np.zeros(tokens_max, np.int32)
        self._position = np.zeros(tokens_max, np.int32)
        self._sequence = np.zeros(tokens_max, np.int32)
        self._counting = np.arange(tokens_max, dtype=np.int32)
        self._ones = np.ones(tokens_max, np.int32)
        # Every token is an output: pooling reads all of them.
        self._outputs = np.ones(tokens_max, np.int8)
        base = self._sequence.ctypes.data
        self._pointers = base + 4 * np.arange(tokens_max, dtype=np.uint64)
        self._batch = llama_cpp.llama_batch()
        self._batch.pos = pointer(self._position, llama_cpp.llama_pos)
        self._batch.n_seq_id = pointer(self._ones, ctypes.c_int32)
        self._batch.seq_id = pointer(self._pointers, ctypes.POINTER(llama_cpp.llama_seq_id))
        self._batch.logits = pointer(self._outputs, ctypes.c_int8)
        self._tokens = pointer(self.token, llama_cpp.llama_token)

    def fill(self, sequences: Sequence[TokenSequence], tokens: npt.NDArray[np.int32]) -> None:
        """Lay sequences one after the other, each with its index as its id.

        `tokens` are all of theirs, int32[n_tokens].
        """
        total = len(tokens)
        lengths = np.fromiter(map(len, sequences), np.int32, len(sequences))
        starts = np.cumsum(lengths, dtype=np.int32) - lengths
        self.token[:total] = tokens
        self._sequence[:total] = np.repeat(self._counting[: len(sequences)], lengths)
        np.subtract(self._counting[:total], np.repeat(starts, lengths), out=self._position[:total])

    def batch(self, total: int, rows: Matrix | None) -> llama_cpp.llama_batch:
        """Return the first `total` tokens, or `rows` (float32[total, n_embd]) in their place."""
        batch = self._batch
        batch.n_tokens = total
        batch.token = self._tokens if rows is None else None
        batch.embd = None if rows is None else pointer(rows, ctypes.c_float)
        return batch
