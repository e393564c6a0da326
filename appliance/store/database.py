"""Database: one SQLite file, opened the one safe way.

Owns pragmas, the identity of the file and its migrations' execution. Deliberately knows nothing of
keys or money: tables come from whoever owns their meaning.

Exactly one connection writes and checkpoints (the WAL-reset bug of SQLite before 3.51.3,
sqlite.org/wal.html#walresetbug, needs two).
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlite_utils
from sqlite_utils import Migrations

from appliance.core.errors import StoreFailed

APPLICATION_ID = 0x67723031
"""`gr01` in the file's header: a foreign file is never touched."""

Migration = tuple[str, Callable[[sqlite3.Connection], None]]
"""A stable name and the step, run once in a transaction of its own."""


def connect(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """Open or create the file and bring its tables up to date.

    The connection commits nothing by itself: writers say `BEGIN IMMEDIATE`. It may be used by one
    thread at a time.

    Raises:
        StoreFailed: the file is damaged, foreign, newer than this program, or cannot be opened.
    """
    try:
        fresh = not path.exists() or path.stat().st_size == 0
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
        try:
            _identify(connection, path, fresh=fresh)
            _configure(connection)
            _migrate(connection, path, migrations)
        except BaseException:
            connection.close()
            raise
        path.chmod(0o600)
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(f"{path}: {error}. Nothing was changed; restore a backup.") from error
    return connection


def _identify(connection: sqlite3.Connection, path: Path, *, fresh: bool) -> None:
    if fresh:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        return
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if found != APPLICATION_ID:
        raise StoreFailed(f"{path} is not a gigarouter database; nothing was changed.")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreFailed(f"{path} is damaged ({verdict}); nothing was changed. Restore a backup.")


def _configure(connection: sqlite3.Connection) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",
        "wal_autocheckpoint = 1000",
        # macOS: fsync alone does not reach the platter.
        "fullfsync = ON",
        "checkpoint_fullfsync = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    # Without execute_plugins=False sqlite-utils loads whatever plugins the environment holds.
    database = sqlite_utils.Database(connection, execute_plugins=False, strict=True)
    steps = Migrations("gigarouter")
    for name, step in migrations:
        steps(name=name)(_on_connection(step))
    known = {name for name, _ in migrations}
    applied = {migration.name for migration in steps.applied(database)}
    if applied - known:
        raise StoreFailed(f"{path} was written by a newer gigarouter; upgrade to open it.")
    if known - applied:
        steps.apply(database)


def _on_connection(
    step: Callable[[sqlite3.Connection], None],
) -> Callable[[sqlite_utils.Database], None]:
    def run(database: sqlite_utils.Database) -> None:
        step(database.conn)

    return run


def execute_statements(connection: sqlite3.Connection, statements: Sequence[str]) -> None:
    """Run statements one by one inside the caller's transaction.

    `executescript` would commit that transaction first.
    """
    for statement in statements:
        connection.execute(statement)
