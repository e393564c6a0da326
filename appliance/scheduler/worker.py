"""Worker: one thread with one backend, which takes batches from its engine until there are no more.

Nobody else touches the backend.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.core.errors import ApplianceError, InferenceFailed
from appliance.engine.backend import Backend, EngineLimits
from appliance.engine.vectors import Matrix
from appliance.scheduler.job import Item

log = logging.getLogger("gigarouter.worker")


@dataclass(frozen=True, slots=True)
class Batch:
    """One call of a backend."""

    items: list[Item]
    threads: int
    """How many the backend may use."""
    began_ns: int

    @property
    def tokens(self) -> int:
        """Count tokens."""
        return sum(map(len, self.items))


class BatchSource(Protocol):
    """Where workers get their work; safe from every thread."""

    def next_batch(self, limits: EngineLimits) -> Batch | None:
        """Wait for work; None: there will be no more."""
        ...

    def finish_batch(self, done: Batch, results: "Sequence[Result]") -> None:
        """Hand over what became of each item of a batch, in order; the worker is idle again."""
        ...

    def worker_ended(self, error: BaseException | None, *, opened: bool) -> None:
        """Say that a worker is gone: because of an error, or before it had a backend."""
        ...


Result = Matrix | InferenceFailed | None
"""A row, float32[width], or why there is none; None: nobody wants it any more."""


class Worker:
    """A running worker."""

    def __init__(self, name: str, source: BatchSource, open_backend: Callable[[], Backend]) -> None:
        """Start the thread, which opens its own backend."""
        self._source = source
        self._open_backend = open_backend
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Say whether it lives."""
        return f"<Worker {self._thread.name} [{'alive' if self._thread.is_alive() else 'ended'}]>"

    def join(self) -> None:
        """Return once the worker has ended."""
        self._thread.join()

    # -- on the worker's own thread -------------------------------------------------------------

    def _work(self) -> None:
        try:
            backend = self._open_backend()
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear it
            self._source.worker_ended(error, opened=False)
            return
        fatal: BaseException | None = None
        try:
            while (work := self._source.next_batch(backend.limits)) is not None:
                self._source.finish_batch(work, self._compute(backend, work))
        except BaseException as error:  # noqa: BLE001 - the engine says what it means
            fatal = error
        try:
            backend.close()
        except ApplianceError:
            log.exception("closing %s failed", self._thread.name)
        self._source.worker_ended(fatal, opened=True)

    def _compute(self, backend: Backend, work: Batch) -> Sequence[Result]:
        try:
            return list(
                backend.compute([item.sequence for item in work.items], threads=work.threads)
            )
        except InferenceFailed as error:
            log.warning("a batch of %s failed: %s", self._thread.name, error.message)
            if len(work.items) == 1:
                return [error]
        # One poisonous text must not fail its neighbours: each alone, then.
        return [self._compute_alone(backend, item, work.threads) for item in work.items]

    def _compute_alone(self, backend: Backend, item: Item, threads: int) -> Result:
        if item.first_live_waiter is None:
            return None
        try:
            row: Matrix = backend.compute([item.sequence], threads=threads)[0]
        except InferenceFailed as error:
            return error
        return row
