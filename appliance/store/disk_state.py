"""DiskState: what the writer knows of its disk: whether it is full, and whether it has failed.

Owns what follows from each error. A full disk is survived: the reserve is given up, what was begun
is finished in its space, and nothing new begins until it could be taken back. A disk that fails is
not: after a failed flush the kernel forgets the pages, so that a second try would report success
for what is lost (wiki.postgresql.org/wiki/Fsync_Errors). The books are then broken for good, and
the process that has them open must stop.
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
        """Have it at a start; return whether there is room."""

    def give_up(self) -> None:
        """Give it back to the disk."""

    def take_back(self) -> bool:
        """Try to have it again; return whether it is there."""


class DiskState:
    """The disk under one database; changed by the writer's thread, read by every thread."""

    def __init__(self, reserve: Spare) -> None:
        """Take the reserve, or note that the disk is full."""
        self._reserve = reserve
        self.is_full = not reserve.prepare()
        """True: the reserve was given up, and only what was begun is finished."""
        self.broken: Future[str] = Future()
        """Done with the reason when the database cannot be trusted any more."""

    def __repr__(self) -> str:
        """Say which of the three states it is."""
        return f"<DiskState [{self.word}]>"

    @property
    def word(self) -> str:
        """`broken`, `short of space` or `open`."""
        return "broken" if self.broken.done() else "short of space" if self.is_full else "open"

    def fail(self, error: BaseException) -> None:
        """Let nothing be written any more. The first reason is kept."""
        if not self.broken.done():
            self.broken.set_result(str(error) or type(error).__name__)

    def require_whole(self) -> None:
        """Refuse to go on after a failure.

        Raises:
            LedgerUnavailable: the disk has failed.
        """
        if self.broken.done():
            raise LedgerUnavailable(self.broken.result())

    def make_room(self, error: sqlite3.Error) -> bool:
        """Give up the reserve if the disk is full; return whether another try has more room."""
        if self.is_full or classify(error) != "full":
            return False
        self.is_full = True
        self._reserve.give_up()
        log.warning("the disk is full: new calls are refused until there is space")
        return not self.broken.done()

    def look_for_room(self) -> None:
        """Take the reserve back once there is space again."""
        if self.is_full and not self.broken.done() and self._reserve.take_back():
            self.is_full = False
            log.info("there is space on the disk again: new calls are served")

    def refusal(self, error: BaseException) -> RetryableError:
        """Return how a failed transaction is reported; decide whether it was the last one."""
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
