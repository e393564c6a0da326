"""Backup: a checked copy of the books, and its restoration.

Owns making, checking and restoring copies. A copy is one file, complete and audited before it gets
its name.
"""

import os
import secrets
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from appliance.core.clock import stamp
from appliance.core.errors import StoreFailed
from appliance.ledger import audit, rollback_guard
from appliance.ledger.schema import MIGRATIONS
from appliance.store.database import connect, require_ours
from appliance.store.datadir import SIDES, DataDir, sync_directory, sync_file
from appliance.store.placement import place, require_place
from appliance.store.reader import open_read_only, reading

KEPT_FREE_BYTES = 64 * 1024 * 1024
"""Free space that a copy on the same disk leaves to the books."""


def back_up(directory: DataDir, target: Path, *, overwrite: bool = False) -> int:
    """Copy the books as they are now, with a running server or without; return the copy's bytes.

    Raises:
        InvalidRequest: the path exists or cannot be used; `param` is `path`.
        StoreFailed: the copy could not be made or failed its check, and was removed.
    """
    require_place(target, directory.path, overwrite=overwrite)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        _require_room(directory.database, target.parent)
        _copy(directory.database, part)
        _require_good(part)
        sync_file(part)
        size = part.stat().st_size
        place(part, target, overwrite=overwrite)
    except (StoreFailed, sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise StoreFailed(f"{target} was not written: {error}") from error
    finally:
        _remove(part)
    return size


def restore(directory: DataDir, source: Path, now_us: int) -> Path | None:
    """Replace the books of a locked data directory by a backup.

    The replaced books are kept beside it; returns their path, or None if there were none.

    Raises:
        StoreFailed: the backup failed its check; nothing was changed.
    """
    database = directory.database
    part = database.with_name(f"{database.name}.part")
    _remove(part)
    try:
        require_ours(source)
        _copy(source, part)
        # A backup of an older version is migrated, as a start would do.
        connect(part, MIGRATIONS).close()
        _require_good(part)
        sync_file(part)
        aside = _set_aside(database, now_us)
        part.replace(database)
        sync_directory(database.parent)
        # Last: until then the rollback guard refuses a start.
        with closing(open_read_only(database)) as books:
            rollback_guard.write(directory.rollback_guard, books, now_us)
    except (StoreFailed, sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise StoreFailed(f"{source} was not restored: {error}") from error
    finally:
        _remove(part)
    return aside


def _require_room(database: Path, folder: Path) -> None:
    size = sum(
        path.stat().st_size for path in (database, _beside(database, "-wal")) if path.exists()
    )
    is_same_disk = database.parent.stat().st_dev == folder.stat().st_dev
    needed = size + (KEPT_FREE_BYTES if is_same_disk else 0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreFailed(f"{needed} bytes must be free on its disk, {free} are.")


def _copy(source: Path, part: Path) -> None:
    """Copy one snapshot of a database to a new file that needs no log beside it."""
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with (
        reading(source) as books,
        closing(sqlite3.connect(part, isolation_level=None)) as copy,
    ):
        copy.execute("PRAGMA synchronous = OFF")  # flushed once, when it is whole
        try:
            books.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            raise StoreFailed(f"copying failed: {error}.") from error


def _require_good(copy: Path) -> None:
    """Refuse a copy that is damaged, or whose books do not agree."""
    require_ours(copy)
    with closing(open_read_only(copy)) as books:
        [(verdict,)] = books.execute("PRAGMA integrity_check(1)").fetchall()
        if verdict != "ok":
            raise StoreFailed(f"it is damaged ({verdict.splitlines()[-1]}).")
        dangling = books.execute("PRAGMA foreign_key_check").fetchone()
        if dangling is not None:
            raise StoreFailed(f"it is damaged (a row of {dangling[0]} refers to nothing).")
        problems = audit.problems(books)
        if problems:
            raise StoreFailed(f"its books do not add up ({problems[0]}).")


def _set_aside(database: Path, now_us: int) -> Path | None:
    """Give the books and their log another name; the old name stays until it is replaced."""
    if not database.exists():
        return None
    aside = database.with_name(f"{database.name}.replaced-{stamp(now_us)}")
    if aside.exists():
        raise StoreFailed(f"{aside} exists.")
    # First the log: SQLite would copy it into whatever database has this name.
    for side in SIDES:
        if _beside(database, side).exists():
            _beside(database, side).replace(_beside(aside, side))
    try:
        os.link(database, aside)
    except OSError:  # a file system without hard links: for a moment there is no database
        database.replace(aside)
    sync_directory(database.parent)
    return aside


def _beside(database: Path, side: str) -> Path:
    return database.with_name(database.name + side)


def _remove(database: Path) -> None:
    for side in ("", *SIDES):
        _beside(database, side).unlink(missing_ok=True)
