"""Batch: sequences in the layout that llama.cpp reads.

Owns the arrays behind `llama_batch`, allocated once and filled by slices.
"""

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.engine.llama.library import pointer
from appliance.engine.llama.prefix import PrefixLayout, owners
from appliance.engine.vectors import Matrix
from appliance.sequences.sequence import Tokens, TokenSequence


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
        """Write sequences one after the other, each with its index as its id.

        `tokens` are the tokens of all of them, int32[n_tokens].
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


class TreeArrays:
    """The arrays of one context whose tokens may belong to several sequences at once.

    A sequence's id is its place in the layout, so the ids of a token's sequences are consecutive.
    """

    def __init__(self, tokens_max: int, sequences_max: int) -> None:
        self._token = np.zeros(tokens_max, np.int32)
        self._position = np.zeros(tokens_max, np.int32)
        self._owners = np.zeros(tokens_max, np.int32)
        self._pointers = np.zeros(tokens_max, np.uint64)
        self._counting = np.arange(tokens_max, dtype=np.int32)
        self._ids = np.arange(sequences_max, dtype=np.int32)
        self._outputs = {True: np.ones(tokens_max, np.int8), False: np.zeros(tokens_max, np.int8)}

    def fill(self, tokens: Sequence[Tokens], layout: PrefixLayout) -> int:
        """Write every token that is not shared with an earlier place, and return how many."""
        return self._fill(tokens, layout, left=0)

    def fill_all_but_last(self, tokens: Sequence[Tokens], layout: PrefixLayout) -> int:
        """As `fill`, without the last token of each sequence."""
        return self._fill(tokens, layout, left=1)

    def fill_last(self, tokens: Sequence[Tokens], layout: PrefixLayout) -> int:
        """Write the last token of each sequence, and return how many."""
        count = len(layout.order)
        for place, index in enumerate(layout.order):
            self._token[place] = tokens[index][-1]
            self._position[place] = len(tokens[index]) - 1
        self._owners[:count] = 1
        self._pointers[:count] = self._ids.ctypes.data + 4 * self._ids[:count].astype(np.uint64)
        return count

    def _fill(self, tokens: Sequence[Tokens], layout: PrefixLayout, *, left: int) -> int:
        lengths = [len(tokens[index]) for index in layout.order]
        start = 0
        for place, index in enumerate(layout.order):
            first, last = layout.shared[place], lengths[place] - left
            end = start + last - first
            self._token[start:end] = tokens[index][first:last]
            self._position[start:end] = self._counting[first:last]
            self._owners[start:end] = owners(layout.shared, lengths, place)[: last - first]
            self._pointers[start:end] = self._ids.ctypes.data + 4 * place
            start = end
        return start

    def batch(self, total: int, *, outputs: bool) -> llama_cpp.llama_batch:
        """Return the first `total` tokens; all or none of them are outputs."""
        batch = llama_cpp.llama_batch()
        batch.n_tokens = total
        batch.token = pointer(self._token, llama_cpp.llama_token)
        batch.pos = pointer(self._position, llama_cpp.llama_pos)
        batch.n_seq_id = pointer(self._owners, ctypes.c_int32)
        batch.seq_id = pointer(self._pointers, ctypes.POINTER(llama_cpp.llama_seq_id))
        batch.logits = pointer(self._outputs[outputs], ctypes.c_int8)
        return batch
