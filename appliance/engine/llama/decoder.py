"""Decoder: a context of a model with a KV cache: Qwen3-Embedding, Qwen3-Reranker and their kind.

Owns one context, which only the thread that opened it may use, and two ways to compute less than
the library would by itself: a prefix that several sequences share is computed once, and where only
the last token of each sequence is pooled, the others are computed without outputs (the library
would multiply each of them with the whole vocabulary).
"""

from collections.abc import Sequence

import llama_cpp
import numpy as np

from appliance.catalog.capacity import DECODER_UBATCH_TOKENS, LAST_POOLINGS
from appliance.core.errors import InferenceFailed
from appliance.engine.backend import EngineLimits, ModelFacts, require_computable
from appliance.engine.llama.batch import TreeArrays
from appliance.engine.llama.library import clear_memory, read_rows, set_embeddings
from appliance.engine.llama.prefix import layout_apart, layout_shared
from appliance.engine.llama.team import ThreadTeam
from appliance.engine.vectors import Matrix
from appliance.sequences.sequence import TokenSequence

ONE_PHASE_TOKENS = 16
"""Tokens of a batch up to which outputs for all of them cost no more than a second pass over the
weights (measured on two cores, with a vocabulary a third as large as the blocks: Qwen3-0.6B)."""


def adapt(parameters: llama_cpp.llama_context_params, pooling: str) -> None:
    """Change an encoder's parameters into those of a decoder: `DecoderBackend` relies on them."""
    # One cell of the cache for each token of a call; one cache for all sequences (`kv_unified`).
    parameters.n_batch = parameters.n_ubatch = parameters.n_ctx
    # A power of two divides n_ubatch. Where it did not, the library would round up the tokens of
    # its trial graph and not their outputs, and abort over the pooling of the two.
    parameters.n_seq_max = 1 << (parameters.n_seq_max - 1).bit_length()
    if pooling in LAST_POOLINGS:
        parameters.n_ubatch = min(parameters.n_ctx, DECODER_UBATCH_TOKENS)
        parameters.n_outputs_max = max(parameters.n_seq_max, ONE_PHASE_TOKENS)


class DecoderBackend:
    """Computes every batch in one `llama_decode`, or two."""

    def __init__(
        self,
        context: int,
        team: ThreadTeam,
        *,
        limits: EngineLimits,
        facts: ModelFacts,
        pooling: str,
    ) -> None:
        """Take over a context and its threads, which this frees."""
        self.limits = limits
        self.facts = facts
        self._context: int | None = context
        self._memory = llama_cpp.llama_get_memory(context)
        self._tainted = False
        self._team = team
        self._one_phase_tokens = (
            ONE_PHASE_TOKENS if pooling in LAST_POOLINGS else limits.ubatch_tokens_max
        )
        self._arrays = TreeArrays(limits.ubatch_tokens_max, limits.sequences_max)
        self._require_room()

    def compute(self, sequences: Sequence[TokenSequence], *, threads: int) -> Matrix:
        """Return one row for each sequence, unnormalised, float32[n_sequences, facts.width].

        Raises:
            InferenceFailed: the library refused this batch, or its numbers are not finite.
        """
        assert self._context is not None
        total = len(require_computable(sequences, self.limits, self.facts))
        tokens = [sequence.tokens for sequence in sequences]
        layout = layout_shared(tokens) if len(tokens) > 1 else layout_apart(1)
        # Cells that are masked off are multiplied by zero, and zero times NaN is NaN: what a failed
        # batch left in the cache must not reach the next one.
        clear_memory(self._memory, wipe=self._tainted)
        self._tainted = True
        arrays = self._arrays
        with self._team.computing(threads):
            if total - sum(layout.shared) <= self._one_phase_tokens:
                self._decode(arrays.fill(tokens, layout), outputs=True)
            else:
                self._decode(arrays.fill_all_but_last(tokens, layout), outputs=False)
                self._decode(arrays.fill_last(tokens, layout), outputs=True)
        llama_cpp.llama_synchronize(self._context)
        rows = read_rows(self._context, len(tokens), self.facts.width)
        ordered = np.empty_like(rows)
        ordered[layout.order] = rows
        self._tainted = False
        return ordered

    def _require_room(self) -> None:
        """Check what `require_computable` takes for granted: room for all that it lets through."""
        tokens = self.limits.ubatch_tokens_max
        assert self._memory
        # A cell for each token; the last tokens of two phases have cells of their own.
        assert llama_cpp.llama_n_ctx(self._context) >= tokens
        assert llama_cpp.llama_n_batch(self._context) >= tokens
        # What is pooled over several tokens must be in one piece.
        assert llama_cpp.llama_n_ubatch(self._context) >= min(self._one_phase_tokens, tokens)
        assert llama_cpp.llama_n_seq_max(self._context) >= min(self.limits.sequences_max, tokens)

    def _decode(self, count: int, *, outputs: bool) -> None:
        """Decode the first `count` tokens of the arrays, if any."""
        assert self._context is not None
        if count == 0:
            return
        set_embeddings(self._context, on=outputs)
        code = llama_cpp.llama_decode(self._context, self._arrays.batch(count, outputs=outputs))
        if code != 0:
            raise InferenceFailed(f"llama.cpp returned {code}")

    def close(self) -> None:
        """Free the context."""
        if self._context is not None:
            llama_cpp.llama_free(self._context)
            self._context = None
            self._team.close()
