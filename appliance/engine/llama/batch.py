"""Batch: sequences in the layout that llama.cpp reads.

Owns the arrays behind `llama_batch`, allocated once and filled by slices. Deliberately checks
nothing: whoever fills them has.
"""

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np

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

    def fill(self, sequences: Sequence[TokenSequence]) -> None:
        """Lay sequences one after the other, each with its index as its id."""
        start = 0
        for index, sequence in enumerate(sequences):
            end = start + len(sequence)
            self.token[start:end] = sequence.tokens
            self._position[start:end] = self._counting[: len(sequence)]
            self._sequence[start:end] = index
            start = end

    def batch(self, total: int, rows: Matrix | None) -> llama_cpp.llama_batch:
        """Return the first `total` tokens, or `rows` (float32[total, n_embd]) in their place."""
        batch = llama_cpp.llama_batch()
        batch.n_tokens = total
        if rows is None:
            batch.token = pointer(self.token, llama_cpp.llama_token)
        else:
            batch.embd = pointer(rows, ctypes.c_float)
        batch.pos = pointer(self._position, llama_cpp.llama_pos)
        batch.n_seq_id = pointer(self._ones, ctypes.c_int32)
        batch.seq_id = pointer(self._pointers, ctypes.POINTER(llama_cpp.llama_seq_id))
        batch.logits = pointer(self._outputs, ctypes.c_int8)
        return batch
