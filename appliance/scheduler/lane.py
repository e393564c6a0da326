"""Lane: one thread with one backend, which takes bins from its engine until there are no more.

Nobody else touches the backend. Deliberately decides nothing: the engine says what comes next.
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

log = logging.getLogger("gigarouter.lane")


@dataclass(frozen=True, slots=True)
class Bin:
    """One call of a backend."""

    items: list[Item]
    threads: int
    """How many the backend may use."""
    began_ns: int

    @property
    def tokens(self) -> int:
        """Count tokens."""
        return sum(map(len, self.items))


class Desk(Protocol):
    """Where lanes get their work; safe from every thread."""

    def next_bin(self, limits: EngineLimits) -> Bin | None:
        """Wait for work; None: there will be no more."""
        ...

    def settle(self, done: Bin, results: "Sequence[Result]") -> None:
        """Hand over what became of each item of a bin, in order; the lane is idle again."""
        ...

    def lane_ended(self, error: BaseException | None, *, opened: bool) -> None:
        """Say that a lane is gone: because of an error, or before it had a backend."""
        ...


Result = Matrix | InferenceFailed | None
"""A row, float32[width], or why there is none; None: nobody wants it any more."""


class Lane:
    """A running lane."""

    def __init__(self, name: str, desk: Desk, open_backend: Callable[[], Backend]) -> None:
        """Start the thread, which opens its own backend."""
        self._desk = desk
        self._open_backend = open_backend
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Say whether it lives."""
        return f"<Lane {self._thread.name} [{'alive' if self._thread.is_alive() else 'ended'}]>"

    def join(self) -> None:
        """Return once the lane has ended."""
        self._thread.join()

    # -- on the lane's own thread -------------------------------------------------------------

    def _work(self) -> None:
        try:
            backend = self._open_backend()
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear it
            self._desk.lane_ended(error, opened=False)
            return
        fatal: BaseException | None = None
        try:
            while (work := self._desk.next_bin(backend.limits)) is not None:
                self._desk.settle(work, self._compute(backend, work))
        except BaseException as error:  # noqa: BLE001 - the engine says what it means
            fatal = error
        try:
            backend.close()
        except ApplianceError:
            log.exception("closing %s failed", self._thread.name)
        self._desk.lane_ended(fatal, opened=True)

    def _compute(self, backend: Backend, work: Bin) -> Sequence[Result]:
        try:
            return list(
                backend.compute([item.sequence for item in work.items], threads=work.threads)
            )
        except InferenceFailed as error:
            log.warning("a bin of %s failed: %s", self._thread.name, error.message)
            if len(work.items) == 1:
                return [error]
        # One poisonous text must not fail its neighbours: each alone, then.
        return [self._compute_alone(backend, item, work.threads) for item in work.items]

    def _compute_alone(self, backend: Backend, item: Item, threads: int) -> Result:
        if item.live is None:
            return None
        try:
            row: Matrix = backend.compute([item.sequence], threads=threads)[0]
        except InferenceFailed as error:
            return error
        return row
