"""RollbackGuard: the last transfer, recorded outside the database.

Owns the file `ledger.head`, written after each commit that moved money. A database without that
transfer has lost some: its log was truncated, or it was replaced by an older copy. The file records
the time too, so that a clock that was set back is noticed. It is never flushed: after a loss of
power it may be behind the database, which does no harm.
"""

import os
import sqlite3
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from appliance.core.errors import StoreFailed
from appliance.ledger.transfer import GENESIS, ChainTip, chain_tip, checkpoint, hash_of
from appliance.store.database import WAY_OUT

MAGIC = "gigarouter-ledger-1"


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """The content of the file."""

    tip: ChainTip
    seen_us: int
    """When it was written, by the books' clock."""


class RollbackGuard:
    """The open file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = read(path)
        """Its content when it was opened; None: there was none, or it was not readable."""
        self._written: ChainTip | None = None
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Do not create the file: that is done after the first commit."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def require(self, connection: sqlite3.Connection, database: Path) -> None:
        """Refuse a database that lacks the recorded transfer.

        Raises:
            StoreFailed: the transfer is missing or differs.
        """
        if self.found is None or self.found.tip.seq == 0:
            return
        seq, expected = self.found.tip
        if seq < checkpoint(connection).seq:
            return  # it was written, and removed since: this record could not be written for long
        if hash_of(connection, seq) != expected:
            raise StoreFailed(
                f"{database} lacks transfer {seq}, which was written: its log was cut off, or an "
                f"older copy took its place. Nothing was changed; {WAY_OUT}"
            )

    def follow(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Record the database's last transfer; call after a commit."""
        # An error here must not fail operations that are committed.
        with suppress(OSError, sqlite3.Error):
            last = chain_tip(connection)
            if last == self._written:
                return
            if self._handle is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
                self._handle = os.open(self.path, flags, 0o600)
            os.pwrite(self._handle, _encode(GuardRecord(last, now_us)), 0)
            self._written = last


def require_database(database: Path, head: Path) -> None:
    """Refuse to create new books where others were.

    Raises:
        StoreFailed: the database is missing and `ledger.head` is not.
    """
    if head.exists() and not (database.exists() and database.stat().st_size):
        raise StoreFailed(
            f"{database} is missing. Restore a backup with: gigarouter restore FILE; "
            f"or remove {head.name} beside it to begin new books"
        )


def read(path: Path) -> GuardRecord | None:
    """Return the content of a file, or None if it is missing or not readable."""
    with suppress(OSError, ValueError):
        text = path.read_text("ascii")
        body, _, check = text.rstrip("\n").rpartition(" ")
        magic, seq, digest, seen_us = body.split(" ")
        if magic == MAGIC and int(check, 16) == zlib.crc32(body.encode()):
            return GuardRecord(ChainTip(int(seq), bytes.fromhex(digest)), int(seen_us))
    return None


def write(path: Path, connection: sqlite3.Connection, now_us: int) -> None:
    """Record the last transfer of a restored database."""
    with RollbackGuard(path) as file:
        file.follow(connection, now_us)


def _encode(head: GuardRecord) -> bytes:
    digest = (head.tip.hash if head.tip.seq else GENESIS).hex()
    body = f"{MAGIC} {head.tip.seq:020d} {digest} {head.seen_us:020d}"
    return f"{body} {zlib.crc32(body.encode()):08x}\n".encode()
