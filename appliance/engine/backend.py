"""Backend: what the scheduler needs of a loaded model.

Owns the interface between scheduling and native code, and the checks that keep native code from
aborting the process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from appliance.engine.vectors import Matrix
from appliance.sequences.sequence import TokenSequence


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What one call to a backend may hold."""

    ubatch_tokens_max: int
    """Tokens in one call; also the longest sequence."""
    max_batch_tokens: int
    """Tokens at which a batch of several sequences is closed: attention is computed over all of it
    (llama.cpp has no per-sequence attention without a KV cache), so small batches are faster."""
    sequences_max: int
    """Sequences in one call."""
    side_tokens_max: int = 0
    """Tokens in one call of every worker but a model's first; 0: as many as in its."""

    def __post_init__(self) -> None:
        """Check that every admitted sequence can be computed alone."""
        assert self.side_tokens_max >= 0
        assert 0 < self.max_batch_tokens <= self.ubatch_tokens_max
        assert 0 < self.sequences_max <= 256  # noqa: PLR2004 - LLAMA_MAX_SEQ


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The numbers of a loaded model that others depend on."""

    vocabulary: int
    """Token ids are below this."""
    width: int
    """Numbers in one output row: dimensions of a vector, or scores of a rank head."""
    tokens_max: int
    """Positions the model was trained for: the longest sequence, special tokens included."""
    description: str
    """As the library words it: architecture, size and quantization."""


class Backend(Protocol):
    """What one thread computes with (llama.cpp: a context); no other thread may use it."""

    limits: EngineLimits

    def compute(self, sequences: Sequence[TokenSequence], *, threads: int) -> Matrix:
        """Return the rows of each sequence, in order, unnormalised, float32[n_rows, facts.width].

        Raises:
            InferenceFailed: the library refused this batch; the next one may succeed.
            EngineDied: nothing more can be computed.
        """
        ...

    def close(self) -> None:
        """Free everything; the backend is not used again."""
        ...


class Weights(Protocol):
    """One loaded model: read only, shared by its backends, which may compute at the same time."""

    limits: EngineLimits
    """The most that any of its backends may take."""
    facts: ModelFacts

    def open_backend(self, limits: EngineLimits, *, flash_attention: bool | None) -> Backend:
        """Return a backend for the calling thread; None leaves flash attention to the library.

        Raises:
            LoadFailed: there is no memory for it.
        """
        ...

    def close(self) -> None:
        """Free the weights; every backend is closed by then."""
        ...


def require_computable(
    sequences: Sequence[TokenSequence], limits: EngineLimits, facts: ModelFacts
) -> npt.NDArray[np.int32]:
    """Return the batch's tokens, int32[n_tokens], after the checks that native code leaves out.

    A batch that breaks one of these bounds would end the process (`GGML_ASSERT`) or read memory out
    of bounds. They are assertions, because the scheduler makes the batches and users cannot.
    """
    assert 0 < len(sequences) <= limits.sequences_max
    for sequence in sequences:
        assert sequence.tokens.dtype == np.int32
        assert sequence.tokens.ndim == 1
        assert 0 < len(sequence) <= facts.tokens_max
        assert 0 <= sequence.segment_b <= len(sequence)
        if sequence.parts:
            assert min(sequence.parts) > 0
            assert sum(sequence.parts) == len(sequence)
    tokens = np.concatenate([sequence.tokens for sequence in sequences])
    assert len(tokens) <= limits.ubatch_tokens_max
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < facts.vocabulary
    return tokens
