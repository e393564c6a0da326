"""Encoder: a context of a model without a KV cache: the BERT family.

Owns one context, which only the thread that opened it may use.
"""

from collections.abc import Sequence

import llama_cpp
import numpy as np

from appliance.core.errors import InferenceFailed
from appliance.engine.backend import EngineLimits, ModelFacts, require_computable
from appliance.engine.llama.batch import BatchArrays
from appliance.engine.llama.library import read_means, read_rows
from appliance.engine.llama.segments import Segments
from appliance.engine.llama.team import ThreadTeam
from appliance.engine.vectors import Matrix
from appliance.sequences.sequence import TokenSequence


class EncoderBackend:
    """Computes every batch in one `llama_encode`."""

    def __init__(
        self,
        context: int,
        team: ThreadTeam,
        *,
        limits: EngineLimits,
        facts: ModelFacts,
        segments: Segments | None,
        averages: bool = False,
    ) -> None:
        """Take over a context and its threads, which this frees.

        `averages` says that the context pools nothing, and a row is the mean of its tokens'.
        """
        self.limits = limits
        self.facts = facts
        self._context: int | None = context
        self._segments = segments
        self._averages = averages
        self._team = team
        self._arrays = BatchArrays(limits.ubatch_tokens_max)
        self._require_room()

    def compute(self, sequences: Sequence[TokenSequence], *, threads: int) -> Matrix:
        """Return the rows of each sequence, in order, unnormalised, float32[n_rows, facts.width].

        Raises:
            InferenceFailed: the library refused this batch, or its numbers are not finite.
        """
        assert self._context is not None
        assert self._averages or not any(sequence.parts for sequence in sequences)
        tokens = require_computable(sequences, self.limits, self.facts)
        self._arrays.fill(sequences, tokens)
        rows = self._segments.rows(sequences, tokens) if self._segments is not None else None
        with self._team.computing(threads):
            code = llama_cpp.llama_encode(self._context, self._arrays.batch(len(tokens), rows))
        if code != 0:
            raise InferenceFailed(f"llama.cpp returned {code}")
        llama_cpp.llama_synchronize(self._context)
        if not self._averages:
            return read_rows(self._context, len(sequences), self.facts.width)
        lengths = [part for each in sequences for part in each.parts or (len(each),)]
        return read_means(self._context, np.array(lengths, np.int32), self.facts.width)

    def _require_room(self) -> None:
        """Check what `require_computable` takes for granted: room for all that it lets through."""
        tokens = self.limits.ubatch_tokens_max
        # A batch is computed in one piece, or the library aborts.
        assert llama_cpp.llama_n_batch(self._context) >= tokens
        assert llama_cpp.llama_n_ubatch(self._context) >= tokens
        assert llama_cpp.llama_n_seq_max(self._context) >= min(self.limits.sequences_max, tokens)
        assert not llama_cpp.llama_get_memory(self._context)

    def close(self) -> None:
        """Free the context."""
        if self._context is not None:
            llama_cpp.llama_free(self._context)
            self._context = None
            self._team.close()
