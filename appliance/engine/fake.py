"""Fake: a model without weights, for tests and for trying clients (`serve` with `fake_engine`).

Owns vectors that are made from the token ids alone: the same text always gets the same vector. A
test can make it slow, let it refuse a batch, or let it die.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from appliance.core.errors import EngineDied, InferenceFailed
from appliance.engine.backend import Backend, EngineLimits, ModelFacts, require_computable
from appliance.engine.vectors import Matrix
from appliance.sequences.sequence import Tokens, TokenSequence


class FakeBackend:
    """Computes vectors that depend on the tokens and mean nothing."""

    def __init__(self, facts: ModelFacts, limits: EngineLimits) -> None:
        self.facts = facts
        self.limits = limits
        self.gate = threading.Event()
        """Cleared: every computation waits until it is set."""
        self.gate.set()
        self.refuse = False
        """True: the next computations fail as a batch does that the library refuses."""
        self.die = False
        """True: the next computation is the last."""
        self.computed: list[list[int]] = []
        """The length of each sequence of each batch, in order."""
        self.threads: list[int] = []
        """The threads that each batch was given, in order."""
        self.closed = False

    def compute(self, sequences: Sequence[TokenSequence], *, threads: int = 1) -> Matrix:
        """Return the rows of each sequence, in order, float32[n_rows, facts.width].

        Raises:
            InferenceFailed: `refuse` is set.
            EngineDied: `die` is set.
        """
        self.gate.wait()
        require_computable(sequences, self.limits, self.facts)
        if self.die:
            raise EngineDied("the fake engine was told to die")
        if self.refuse:
            raise InferenceFailed("the fake engine was told to refuse")
        self.computed.append([len(sequence) for sequence in sequences])
        self.threads.append(threads)
        return np.concatenate([self._rows(sequence) for sequence in sequences])

    def close(self) -> None:
        """Take note that it was closed."""
        self.closed = True

    def _rows(self, sequence: TokenSequence) -> Matrix:
        parts = sequence.parts or (len(sequence),)
        ends = np.cumsum(parts).tolist()
        return np.stack(
            [
                self._row(sequence.tokens[end - part : end])
                for part, end in zip(parts, ends, strict=True)
            ]
        )

    def _row(self, tokens: Tokens) -> Matrix:
        # A sum of one repeatable random row per token: similar texts get similar vectors.
        row = np.zeros(self.facts.width, np.float32)
        for token in tokens[:64].tolist():
            row += _token_row(token, self.facts.width)
        return row


@lru_cache(maxsize=4096)
def _token_row(token: int, width: int) -> Matrix:
    return np.random.default_rng(token).standard_normal(width, dtype=np.float32)


class FakeWeights:
    """Opens the backends that it was made with, one after the other."""

    def __init__(
        self, facts: ModelFacts, limits: EngineLimits, backends: Sequence[Backend]
    ) -> None:
        self.facts = facts
        self.limits = limits
        self._backends = list(backends)
        self.closed = False

    def open_backend(self, limits: EngineLimits, *, flash_attention: bool | None) -> Backend:
        """Return the next backend."""
        del limits, flash_attention
        return self._backends.pop(0)

    def close(self) -> None:
        """Take note that it was closed."""
        self.closed = True
