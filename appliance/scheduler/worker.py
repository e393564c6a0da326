"""Worker: one thread with one backend, which takes batches from its engine until there are no more.

No other thread touches the backend.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.core.errors import InferenceFailed
from appliance.engine.backend import Backend, EngineLimits
from appliance.engine.vectors import Matrix
from appliance.scheduler.job import Item
from appliance.sequences.sequence import TokenSequence, row_starts

log = logging.getLogger("gigarouter.worker")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One call of a backend."""

    items: list[Item]
    threads: int
    """Threads that the backend may use."""
    began_ns: int

    @property
    def tokens(self) -> int:
        """Count tokens."""
        return sum(map(len, self.items))


Result = Matrix | InferenceFailed | None
"""A row, float32[width], those of parts, float32[n_parts, width], or the error in their place;
None: it was not computed, because no job waited for it any more."""


class BatchSource(Protocol):
    """What workers take their batches from; safe from every thread."""

    def next_batch(self, limits: EngineLimits, is_retired: Callable[[], bool]) -> Batch | None:
        """Wait for a batch; None: there will be no more, or the worker is retired."""
        ...

    def finish_batch(self, done: Batch, results: Sequence[Result]) -> None:
        """Deliver the result of each item of a batch, in order; the worker is idle again."""
        ...

    def abandon_batch(self, batch: Batch) -> None:
        """Take note that a batch will have no results: its worker ends."""
        ...


class WorkerEnd(Protocol):
    """What is called once, at the end of a worker."""

    def __call__(self, error: BaseException | None, *, opened: bool) -> None:
        """Take the error that ended it, if any; `opened` says whether it ever had a backend."""
        ...


class Worker:
    """A running worker."""

    def __init__(
        self,
        name: str,
        source: BatchSource,
        open_backend: Callable[[], Backend],
        on_end: WorkerEnd,
    ) -> None:
        """Start the thread, which opens its own backend.

        Raises:
            RuntimeError: the system has no room for another thread.
        """
        self._source = source
        self._open_backend = open_backend
        self._on_end = on_end
        self._is_retired = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Say whether it runs."""
        return f"<Worker {self._thread.name} [{'alive' if self._thread.is_alive() else 'ended'}]>"

    def retire(self) -> None:
        """End after the batch that is being computed; the source must be woken then."""
        self._is_retired = True

    def join(self) -> None:
        """Return once the worker has ended."""
        self._thread.join()

    # -- on the worker's own thread -------------------------------------------------------------

    def _work(self) -> None:
        try:
            backend = self._open_backend()
        except BaseException as error:  # noqa: BLE001 - reported to those that wait for the model
            self._on_end(error, opened=False)
            return
        fatal: BaseException | None = None
        try:
            while (batch := self._next(backend)) is not None:
                self._run(backend, batch)
        except BaseException as error:  # noqa: BLE001 - the engine decides what it means
            fatal = error
        try:
            backend.close()
        except BaseException:
            log.exception("closing %s failed", self._thread.name)
        finally:
            self._on_end(fatal, opened=True)

    def _next(self, backend: Backend) -> Batch | None:
        return self._source.next_batch(backend.limits, lambda: self._is_retired)

    def _run(self, backend: Backend, batch: Batch) -> None:
        try:
            results = self._compute(backend, batch)
        except BaseException:
            self._source.abandon_batch(batch)
            raise
        self._source.finish_batch(batch, results)

    def _compute(self, backend: Backend, batch: Batch) -> Sequence[Result]:
        try:
            sequences = [item.sequence for item in batch.items]
            return _by_sequence(sequences, backend.compute(sequences, threads=batch.threads))
        except InferenceFailed as error:
            log.warning("a batch of %s failed: %s", self._thread.name, error.message)
            if len(batch.items) == 1:
                return [error]
        # One text that the backend refuses must not fail the others: each alone, then.
        return [self._compute_alone(backend, item, batch.threads) for item in batch.items]

    def _compute_alone(self, backend: Backend, item: Item, threads: int) -> Result:
        if item.first_live_waiter is None:
            return None
        try:
            rows = backend.compute([item.sequence], threads=threads)
        except InferenceFailed as error:
            return error
        return _by_sequence([item.sequence], rows)[0]


def _by_sequence(sequences: Sequence[TokenSequence], rows: Matrix) -> list[Matrix]:
    """Return the row of each sequence, or the rows of its parts."""
    return [
        rows[start : start + each.rows] if each.parts else rows[start]
        for start, each in zip(row_starts(sequences), sequences, strict=False)
    ]
