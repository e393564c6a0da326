"""Encoder: a context of a model without a KV cache: the BERT family.

Owns one context, which only the thread that opened it may use.
"""

from collections.abc import Sequence

import llama_cpp

from appliance.core.errors import InferenceFailed
from appliance.engine.backend import EngineLimits, ModelFacts, require_computable
from appliance.engine.llama.batch import BatchArrays
from appliance.engine.llama.library import read_rows
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
    ) -> None:
        """Take over a context and its threads, which this frees."""
        self.limits = limits
        self.facts = facts
        self._context: int | None = context
        self._segments = segments
        self._team = team
        self._arrays = BatchArrays(limits.ubatch_tokens_max)
        self._require_room()

    def compute(self, sequences: Sequence[TokenSequence], *, threads: int) -> Matrix:
        """Return one row for each sequence, unnormalised, float32[n_sequences, facts.width].

        Raises:
            InferenceFailed: the library refused this batch, or its numbers are not finite.
        """
        assert self._context is not None
        tokens = require_computable(sequences, self.limits, self.facts)
        self._arrays.fill(sequences, tokens)
        rows = self._segments.rows(sequences, tokens) if self._segments is not None else None
        with self._team.computing(threads):
            code = llama_cpp.llama_encode(self._context, self._arrays.batch(len(tokens), rows))
        if code != 0:
            raise InferenceFailed(f"llama.cpp returned {code}")
        llama_cpp.llama_synchronize(self._context)
        return read_rows(self._context, len(sequences), self.facts.width)

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
