"""BooksHealth: how the books of a running process are, as far as it can be seen in a moment.

Owns the look: through a connection that cannot write, and at the files beside the database.
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
"""Above it only the tables that do not grow with every call are checked: all of it takes longer
than a person waits, and the audit of each hour does it."""


@dataclass(frozen=True, slots=True)
class BooksHealth:
    """What one look found."""

    bytes: int
    log_bytes: int
    has_reserve: bool
    """The space that is kept back for a full disk is there."""
    broken: str | None
    """Why nothing is written any more."""
    damage: str | None
    """What SQLite finds wrong in the file."""
    guard_seq: int
    """The last transfer that the rollback guard remembers; 0: none."""
    guard_agrees: bool
    """The books have that transfer."""
    last_seq: int
    """The last transfer of the books."""
    audited_us: int
    """When they were last known to agree."""
    audit_problem: str | None
    audit_error: str | None


def look(directory: DataDir, books: Books) -> BooksHealth:
    """Look at open books; not for the loop's thread."""
    # First the guard: it is written after the books, so that they must have what it remembers.
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
