"""Length watch: the first sequence of each length that a file computes here is watched.

A trial computes short sequences alone, for long ones take minutes. So what a long one does is seen
when it comes: it is computed alone, with a mark on the disk while it is. A mark that is found at a
start says that the process died meanwhile. That may have had another cause, so it is computed once
more; after a second death such sequences are refused.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from appliance import machine
from appliance.core.errors import EngineDied, InferenceFailed
from appliance.engine.backend import Backend, EngineLimits, Weights
from appliance.engine.vectors import Matrix
from appliance.sequences.sequence import TokenSequence
from appliance.store.datadir import write_private

log = logging.getLogger("gigarouter.trial")

ENDING = ".mark"
DEATHS = 2
"""Of a process over one length, after which the file is to blame."""


class Marks:
    """The files that say what is being computed, beside the records of trials.

    Each is named after a content's digest and a number of tokens. One of before the machine was
    started again says nothing: the process ended with the machine.
    """

    def __init__(self, folder: Path) -> None:
        """Read what a process left that died."""
        self._folder = folder
        self._stopped = False
        self._left: dict[str, int] = {}
        """Tokens of the shortest sequence that processes died of, by digest."""
        self._deaths: dict[Path, int] = {}
        """Of processes over the length that a mark names, so far."""
        for path in folder.glob(f"*{ENDING}"):
            digest, _, tokens = path.name.removesuffix(ENDING).rpartition("-")
            with suppress(OSError, ValueError):
                boot, _, deaths = path.read_text(encoding="utf-8").rpartition(" ")
                if boot != machine.boot_id():
                    path.unlink(missing_ok=True)
                    continue
                self._deaths[path] = int(deaths)
                if int(deaths) >= DEATHS:
                    self._left[digest] = min(int(tokens), self._left.get(digest, int(tokens)))

    def __repr__(self) -> str:
        """Count what was left."""
        return f"<Marks [{len(self._left)} left]>"

    def left(self, digest: str) -> int | None:
        """Return the tokens of the shortest sequence that processes died of, or None."""
        return self._left.get(digest)

    def forget(self, digest: str) -> None:
        """Remove what was left of a content; its record says it now."""
        self._left.pop(digest, None)
        for path in self._folder.glob(f"{digest}-*{ENDING}"):
            self._deaths.pop(path, None)
            path.unlink(missing_ok=True)

    def stop(self) -> None:
        """Leave no mark from now on: whatever ends the process, it was told to end."""
        self._stopped = True
        for path in self._folder.glob(f"*{ENDING}"):
            with suppress(OSError):  # of a disk that went away, too
                path.unlink()

    @contextmanager
    def mark(self, digest: str, tokens: int) -> Iterator[None]:
        """Have a mark on the disk during the block; without room for it there is none."""
        path = self._folder / f"{digest}-{tokens}{ENDING}"
        try:
            if not self._stopped:
                deaths = self._deaths.get(path, 0) + 1
                write_private(path, f"{machine.boot_id()} {deaths}".encode())
            if self._stopped:  # meanwhile, perhaps
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("long sequences are not watched: %s", error)
        try:
            yield
        finally:
            self._deaths.pop(path, None)
            with suppress(OSError):
                path.unlink(missing_ok=True)


class LengthWatch:
    """What one content has proven; all workers of its models share it."""

    def __init__(
        self,
        digest: str,
        marks: Marks,
        *,
        proven: int,
        crashed: int | None,
        on_proven: Callable[[int], None],
    ) -> None:
        """Prepare; `on_proven` is told of each length that was computed for the first time."""
        self._digest = digest
        self._marks = marks
        self._on_proven = on_proven
        self._lock = threading.Lock()
        self.proven = proven
        """Tokens of the longest sequence that was computed here."""
        self.crashed = crashed
        """Tokens of one that crashed the engine, or None."""
        self._deaths: Counter[int] = Counter()
        """Of engines over each length."""

    def __repr__(self) -> str:
        """Say what was computed."""
        return f"<LengthWatch [{self.proven} tokens]>"

    def compute(self, tokens: int, function: Callable[[], Matrix]) -> Matrix:
        """Return what a function computes that may be longer than anything before it.

        Raises:
            InferenceFailed: sequences of this length crashed the engine.
        """
        length = rounded(tokens)
        if self.crashed is not None and length >= rounded(self.crashed):
            raise InferenceFailed(
                f"sequences of {self.crashed:,} tokens crashed llama.cpp with this model's file, "
                f"and this one has {tokens:,}. Send shorter texts; the operator can have it tried "
                "again: gigarouter models try ID --long"
            )
        with self._lock:  # one at a time, so that a mark means one sequence
            if tokens <= self.proven:
                return function()
            try:
                with self._marks.mark(self._digest, length):
                    rows = function()
            except EngineDied:  # a process of the model's own, in which nobody leaves a mark
                self._note_death(length)
                raise
            self.proven = length
        self._on_proven(length)
        return rows

    def _note_death(self, length: int) -> None:
        """Refuse sequences of a length over which the engine died twice."""
        self._deaths[length] += 1
        if self._deaths[length] >= DEATHS:
            log.error("the engine died %d times over %d tokens", DEATHS, length)
            self.crashed = min(length, self.crashed or length)


def rounded(tokens: int) -> int:
    """Return the next power of two: a file proves few lengths, and each covers those below it."""
    return 1 << (tokens - 1).bit_length()


class WatchedBackend:
    """A backend whose long sequences are watched."""

    def __init__(self, backend: Backend, watch: LengthWatch) -> None:
        """Take over a backend, which this closes."""
        self.limits = backend.limits
        self._backend = backend
        self._watch = watch

    def compute(self, sequences: Sequence[TokenSequence], *, threads: int) -> Matrix:
        """Return one row for each sequence, as the backend does.

        Raises:
            InferenceFailed: the backend refuses, or a sequence is too long for this file.
        """
        if max(map(len, sequences)) <= self._watch.proven:
            return self._backend.compute(sequences, threads=threads)
        return np.concatenate([self._alone(sequence, threads) for sequence in sequences])

    def _alone(self, sequence: TokenSequence, threads: int) -> Matrix:
        return self._watch.compute(
            len(sequence), lambda: self._backend.compute([sequence], threads=threads)
        )

    def close(self) -> None:
        """Free everything; the backend is not used again."""
        self._backend.close()


class WatchedWeights:
    """Weights whose backends are watched."""

    def __init__(self, weights: Weights, watch: LengthWatch) -> None:
        """Take over weights, which this closes."""
        self.limits = weights.limits
        self.facts = weights.facts
        self._weights = weights
        self._watch = watch

    def open_backend(self, limits: EngineLimits, *, flash_attention: bool | None) -> Backend:
        """Return a backend for the calling thread, as the weights do.

        Raises:
            LoadFailed: there is no memory for it.
        """
        backend = self._weights.open_backend(limits, flash_attention=flash_attention)
        return WatchedBackend(backend, self._watch)

    def close(self) -> None:
        """Free the weights; every backend is closed by then."""
        self._weights.close()
