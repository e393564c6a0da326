"""Database: one SQLite file and the settings with which it is opened.

Owns the pragmas, the file's identity and the running of migrations. It knows nothing of keys or
money: the tables are defined in `accounts` and `ledger`.

Exactly one connection writes and runs checkpoints, the writer's; all others come from
`store/reader.py` and can do neither. The WAL-reset bug of SQLite before 3.51.3
(sqlite.org/wal.html#walresetbug) needs two such connections, so that no version is refused.

This module is the only one that imports sqlite-utils, and uses its `Migrations` alone: named steps,
each in a transaction of its own, recorded in the database. Rows are read and written with the
standard library's `sqlite3`: a paid call needs `RETURNING`, `ON CONFLICT DO UPDATE` and savepoints,
which are SQL either way, and `db.query` doubles the time of a short read because it builds a
dictionary for each row. Listings and CSV are made of typed structs, not of rows.
"""

import logging
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.core.errors import StoreFailed
from appliance.store.datadir import sync_directory, sync_file
from appliance.store.reader import open_read_only

if TYPE_CHECKING:
    import sqlite_utils

log = logging.getLogger("gigarouter.store")

APPLICATION_ID = 0x67723031
"""`gr01` in the file's header: a file without it is refused and not changed."""

HEADER_BYTES, MAGIC, APPLICATION_ID_AT = 100, b"SQLite format 3\0", 68

MIGRATION_SET = "gigarouter"
MIGRATED = "_sqlite_migrations"
"""The table in which sqlite-utils records the steps that were run."""

COPY_LEAVES_BYTES = 64 * 1024 * 1024
"""Free space that must be left besides twice the database's size, for a copy and a migration."""

LOG_KEPT_BYTES = 16 * 1024 * 1024
"""The log's file is truncated to this when it is written from its beginning again."""

WAY_OUT = "restore a backup with: gigarouter restore FILE"

Migration = tuple[str, Callable[[sqlite3.Connection], None]]
"""A stable name and the step, run once in a transaction of its own."""
Inspection = Callable[[sqlite3.Connection], None]
"""Checks a database that is open for reading; may raise `StoreFailed`."""


def connect(
    path: Path,
    migrations: Sequence[Migration],
    inspect: Inspection = lambda _: None,
    *,
    copy_before_migrating: bool = False,
) -> sqlite3.Connection:
    """Open or create the file and bring its tables up to date.

    A file that exists is checked first, through a connection that cannot write. With
    `copy_before_migrating=True` a database of an older version is copied beside itself before its
    tables change. The connection commits nothing by itself: writers say `BEGIN IMMEDIATE`. It may
    be used by one thread at a time.

    Raises:
        StoreFailed: the file is damaged, foreign, newer than this program, or cannot be opened.
    """
    try:
        if path.exists() and path.stat().st_size > 0:
            require_ours(path)
            _require_whole(path, inspect)
        # Before SQLite opens it: the log and its index are created with the file's mode.
        path.touch(mode=0o600)
        path.chmod(0o600)
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
        try:
            if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _configure(connection)
            _migrate(connection, path, migrations, copies=copy_before_migrating)
        except BaseException:
            connection.close()
            raise
    except OSError as error:
        raise StoreFailed(f"{path} cannot be written: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        # SQLite's message quotes the damaged bytes, and these are not valid UTF-8.
        raise StoreFailed(f"{path} is damaged; nothing was changed; {WAY_OUT}") from error
    except sqlite3.Error as error:
        found = " ".join(str(error).split())
        raise StoreFailed(f"{path}: {found}. Nothing was changed; {WAY_OUT}") from error
    return connection


def require_ours(path: Path) -> None:
    """Refuse a file of another program without changing it or its log.

    Its header alone is read (sqlite.org/fileformat2.html#the_database_header), and not by SQLite: a
    file whose server was killed during a checkpoint is whole only together with its log. No
    connection of this process may have the file open: closing it here would drop their locks.

    Raises:
        StoreFailed: it is another program's database.
        sqlite3.Error: it is no database.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) == HEADER_BYTES and not header.startswith(MAGIC):
        raise sqlite3.DatabaseError("file is not a database")
    if int.from_bytes(header[APPLICATION_ID_AT : APPLICATION_ID_AT + 4], "big") != APPLICATION_ID:
        raise StoreFailed(f"{path} is not a gigarouter database; nothing was changed.")


def _require_whole(path: Path, inspect: Inspection) -> None:
    """Refuse a damaged file before a connection that writes copies its log into it."""
    try:
        with closing(open_read_only(path)) as reader:
            verdict = reader.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict == "ok":
                verdict = _verdict_on_tables(reader)
            if verdict == "ok":
                inspect(reader)
    except sqlite3.OperationalError as error:
        # An error of the sqlite3 module itself has no SQLite name.
        if getattr(error, "sqlite_errorname", None) == "SQLITE_READONLY_ROLLBACK":
            return  # it was being created when the process ended; opening it rolls that back
        raise
    if verdict != "ok":
        raise StoreFailed(
            f"{path} is damaged ({verdict.splitlines()[-1]}); nothing was changed; {WAY_OUT}"
        )


def _verdict_on_tables(reader: sqlite3.Connection) -> str:
    mark = reader.execute("PRAGMA user_version").fetchone()[0]
    if mark not in (0, tables_mark(reader)):
        return "its tables are not as they were made"
    return index_problem(reader, MIGRATED) if has_table(reader, MIGRATED) else "ok"


def index_problem(connection: sqlite3.Connection, table: str) -> str:
    """Return why a table and its indexes do not agree, or `ok`.

    The quick check does not compare them. This takes time in proportion to the table.
    """
    return str(connection.execute(f"PRAGMA integrity_check({table})").fetchone()[0])


def tables_mark(connection: sqlite3.Connection) -> int:
    """Return a checksum over the text of every table, index and trigger, and the steps that ran.

    It is kept in the file's `user_version`. Without it a damaged byte in the text of a constraint
    would change that constraint unnoticed.
    """
    texts = connection.execute(
        "SELECT CAST(sql AS BLOB) FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    ).fetchall()
    if has_table(connection, MIGRATED):
        texts += connection.execute(
            f"SELECT CAST(migration_set || name AS BLOB) FROM {MIGRATED} ORDER BY id"  # noqa: S608 - a constant
        ).fetchall()
    return zlib.crc32(b"\n".join(text for (text,) in texts)) & 0x7FFF_FFFF or 1


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Say whether the database has a table of this name."""
    found = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)
    ).fetchone()
    return found is not None


def _configure(connection: sqlite3.Connection) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",
        # Without it INSERT OR REPLACE deletes rows without running their triggers.
        "recursive_triggers = ON",
        # The writer runs the checkpoints: SQLite's own hook hides a flush that fails meanwhile.
        "wal_autocheckpoint = 0",
        # A log that grew during a long read is truncated when it is restarted.
        f"journal_size_limit = {LOG_KEPT_BYTES}",
        # macOS: fsync alone leaves the data in the drive's cache.
        "fullfsync = ON",
        "checkpoint_fullfsync = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration], *, copies: bool
) -> None:
    known, applied = {name for name, _ in migrations}, _applied(connection)
    if applied - known:
        raise StoreFailed(f"{path} was written by a newer gigarouter; upgrade to open it.")
    if known - applied:
        if applied and copies:
            _keep_copy(connection, path, max(applied))
        connection.execute(
            "PRAGMA user_version = 0"
        )  # a crash during the steps must not leave an old mark
        _apply(connection, migrations)
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        connection.execute(f"PRAGMA user_version = {tables_mark(connection)}")


def _applied(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the steps that this database has behind it."""
    if not has_table(connection, MIGRATED):
        return set()
    rows = connection.execute(
        f"SELECT name FROM {MIGRATED} WHERE migration_set = ?",  # noqa: S608 - a constant
        (MIGRATION_SET,),
    )
    return {name for (name,) in rows}


def _apply(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    # Imported late: most starts find nothing to do, and it takes a twentieth of a start.
    import sqlite_utils  # noqa: PLC0415

    # Without execute_plugins=False sqlite-utils loads whatever plugins the environment holds.
    database = sqlite_utils.Database(connection, execute_plugins=False, strict=True)
    steps = sqlite_utils.Migrations(MIGRATION_SET)
    for name, step in migrations:
        steps(name=name)(_on_connection(step))
    steps.apply(database)


def _keep_copy(connection: sqlite3.Connection, path: Path, last_step: str) -> None:
    """Copy a database beside itself, readable by the older version; log if there is no room."""
    copy = path.with_name(f"{path.name}.after-{last_step}")
    if copy.exists():
        return  # made by an earlier start that ended before the migration
    [(size,)] = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    )
    if shutil.disk_usage(path.parent).free < 2 * size + COPY_LEAVES_BYTES:
        log.warning("%s is brought up to date without a copy: the disk has no room for it", path)
        return
    part = path.with_name(f"{copy.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous = OFF")  # flushed once, when it is whole
            connection.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
        sync_file(part)
        part.replace(copy)
        sync_directory(path.parent)
    finally:
        part.unlink(missing_ok=True)
    log.info("the tables are brought up to date; as they were they are kept in %s", copy)


def _on_connection(
    step: Callable[[sqlite3.Connection], None],
) -> "Callable[[sqlite_utils.Database], None]":
    def run(database: "sqlite_utils.Database") -> None:
        step(database.conn)

    return run


def execute_statements(connection: sqlite3.Connection, statements: Sequence[str]) -> None:
    """Run statements one by one inside the caller's transaction.

    `executescript` would commit that transaction first.
    """
    for statement in statements:
        connection.execute(statement)
