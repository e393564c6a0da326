"""DiskState: whether the database's disk is full, and whether it has failed.

Owns what follows from each error. On a full disk the reserve is given up: calls in flight are
finished in its space, and new ones are refused until it can be allocated again. A disk that fails
ends the process: after a failed flush the kernel drops the pages, so that a second flush would
report success for data that is lost (wiki.postgresql.org/wiki/Fsync_Errors).
"""

import logging
import sqlite3
from concurrent.futures import Future
from typing import Protocol

from appliance.core.errors import LedgerUnavailable, RetryableError, StorageFull
from appliance.store.error_class import classify

log = logging.getLogger("gigarouter.store")


class Spare(Protocol):
    """Disk space that is kept back; see `Reserve`."""

    def prepare(self) -> bool:
        """Allocate it at a start; return whether there is room."""

    def give_up(self) -> None:
        """Free the space."""

    def take_back(self) -> bool:
        """Try to allocate it again; return whether it is allocated."""


class DiskState:
    """The disk under one database; changed by the writer's thread, read by every thread."""

    def __init__(self, reserve: Spare) -> None:
        """Allocate the reserve; without room for it the disk counts as full."""
        self._reserve = reserve
        self.is_full = not reserve.prepare()
        """True: the reserve was given up, and only essential operations run."""
        self.broken: Future[str] = Future()
        """Done with the reason when the database cannot be trusted any more."""

    def __repr__(self) -> str:
        """Show the state."""
        return f"<DiskState [{self.word}]>"

    @property
    def word(self) -> str:
        """`broken`, `short of space` or `open`."""
        return "broken" if self.broken.done() else "short of space" if self.is_full else "open"

    def fail(self, error: BaseException) -> None:
        """Refuse every operation from now on; the first error is kept as the reason."""
        if not self.broken.done():
            self.broken.set_result(str(error) or type(error).__name__)

    def require_whole(self) -> None:
        """Refuse an operation after a failure.

        Raises:
            LedgerUnavailable: the disk has failed.
        """
        if self.broken.done():
            raise LedgerUnavailable(self.broken.result())

    def make_room(self, error: sqlite3.Error) -> bool:
        """Give up the reserve if the disk is full; return whether a second try has more room."""
        if self.is_full or classify(error) != "full":
            return False
        self.is_full = True
        self._reserve.give_up()
        log.warning("the disk is full: new calls are refused until there is space")
        return not self.broken.done()

    def look_for_room(self) -> None:
        """Allocate the reserve again once there is space."""
        if self.is_full and not self.broken.done() and self._reserve.take_back():
            self.is_full = False
            log.info("there is space on the disk again: new calls are served")

    def refusal(self, error: BaseException) -> RetryableError:
        """Return the error for the callers of a failed transaction; a fatal one is kept."""
        if isinstance(error, RetryableError):
            return error
        error_class = classify(error)
        if error_class == "full":
            return StorageFull()
        if error_class == "fatal":
            self.fail(error)
        elif not self.broken.done():
            log.warning("nothing was written: %s", error)
        return LedgerUnavailable(str(error) or type(error).__name__)
