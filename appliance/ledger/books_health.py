"""BooksHealth: the state of open books, as far as it can be read in seconds.

Owns what is read: the database, through a connection that cannot write, and the files beside it.
"""

import sqlite3
from dataclasses import dataclass

from appliance.core.errors import StoreFailed
from appliance.ledger import rollback_guard
from appliance.ledger.books import Books
from appliance.ledger.schema import SMALL
from appliance.ledger.transfer import chain_tip, hash_of
from appliance.store.database import index_problem
from appliance.store.datadir import DataDir
from appliance.store.reader import reading

QUICK_BYTES = 256_000_000
"""Size of the database above which only the tables that do not grow with every call are checked:
the rest takes minutes, and the hourly audit covers it."""


@dataclass(frozen=True, slots=True)
class BooksHealth:
    """What was found at one moment."""

    bytes: int
    log_bytes: int
    has_reserve: bool
    """The reserve for a full disk is allocated."""
    broken: str | None
    """Why every write is refused; None: writes are accepted."""
    damage: str | None
    """What SQLite finds wrong in the file."""
    guard_seq: int
    """The last transfer that the rollback guard recorded; 0: none."""
    guard_agrees: bool
    """The books have that transfer."""
    last_seq: int
    """The last transfer of the books."""
    audited_us: int
    """When the last audit found that they agree."""
    audit_problem: str | None
    audit_error: str | None


def look(directory: DataDir, books: Books) -> BooksHealth:
    """Return the state of open books; blocks for up to some seconds."""
    # The guard first: it is written after a commit, so that the books must have its transfer.
    found = rollback_guard.read(directory.rollback_guard)
    guard_seq, guard_hash = (0, None) if found is None else found.tip
    damage, last_seq, agrees = None, 0, True
    try:
        with reading(directory.database) as connection:
            damage = _damage(connection, directory)
            last_seq = chain_tip(connection).seq
            agrees = guard_seq == 0 or hash_of(connection, guard_seq) == guard_hash
    except StoreFailed as error:
        damage = error.message
    broken, audited = books.writer.broken, books.audited
    return BooksHealth(
        bytes=_size(directory, ""),
        log_bytes=_size(directory, "-wal"),
        has_reserve=not books.writer.is_short and directory.reserve.exists(),
        broken=broken.result() if broken.done() else None,
        damage=damage,
        guard_seq=guard_seq,
        guard_agrees=agrees,
        last_seq=last_seq,
        audited_us=audited.last_us,
        audit_problem=audited.problem,
        audit_error=audited.error,
    )


def _damage(connection: sqlite3.Connection, directory: DataDir) -> str | None:
    try:
        if _size(directory, "") <= QUICK_BYTES:
            verdicts = [str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])]
        else:
            verdicts = [index_problem(connection, table) for table in SMALL]
    except UnicodeDecodeError as error:  # SQLite quotes what it finds, and that is no text
        verdicts = [str(error)]
    return next((each.splitlines()[-1] for each in verdicts if each != "ok"), None)


def _size(directory: DataDir, side: str) -> int:
    path = directory.database.with_name(f"{directory.database.name}{side}")
    return path.stat().st_size if path.exists() else 0
