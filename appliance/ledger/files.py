"""Files: which files each key has uploaded, or got as results of its batches.

Owns the table `files`. What is in a file is on the disk, under the file's id.
"""

import sqlite3
from dataclasses import astuple, dataclass

from appliance.core.errors import FileNotFound, InvalidRequest
from appliance.ledger import batches

COLUMNS = "id, key_id, filename, purpose, bytes, created_us, expires_us"
SELECT = f"SELECT {COLUMNS} FROM files"  # noqa: S608 - constants
INSERT_ONCE = f"INSERT OR IGNORE INTO files ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
INSERT = f"INSERT INTO files ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
PAGE = """
    WHERE key_id = :key AND (:purpose IS NULL OR purpose = :purpose)
        AND (:after IS NULL OR (created_us, id) < (:after_us, :after))
    ORDER BY created_us DESC, id DESC LIMIT :limit
"""

EXPIRED = f"""
    SELECT id FROM files
    WHERE (expires_us <= :now
        OR key_id IN (SELECT id FROM keys WHERE revoked_us IS NOT NULL))
        AND NOT EXISTS (
            SELECT 1 FROM batches WHERE batches.key_id = files.key_id
            AND input_file = files.id AND {batches.IS_OPEN}
        )
    LIMIT :limit
"""  # noqa: S608 - constants

FORGOTTEN = f"""
    DELETE FROM batches WHERE NOT {batches.IS_OPEN}
        AND key_id IN (SELECT id FROM keys WHERE revoked_us IS NOT NULL)
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a key."""

    id: str
    key_id: str
    filename: str
    """As its client named it."""
    purpose: str
    """`batch` or `batch_output`."""
    bytes: int
    created_us: int
    expires_us: int


@dataclass(frozen=True, slots=True)
class Used:
    """What a key's files take."""

    bytes: int
    count: int


def used(connection: sqlite3.Connection, key_id: str) -> Used:
    """Return what a key's files take, and what batches that have not ended have written so far."""
    size, count = connection.execute(
        "SELECT COALESCE(SUM(bytes), 0), COUNT(*) FROM files WHERE key_id = ?", (key_id,)
    ).fetchone()
    return Used(size + batches.written_bytes(connection, key_id), count)


def require_room(taken: Used, size: int, *, bytes_max: int, files_max: int) -> None:
    """Refuse a file that would be more than a key may have.

    Raises:
        InvalidRequest: as said; `param` is `file`.
    """
    if taken.count >= files_max:
        raise InvalidRequest(
            f"this key has {taken.count} files, and may have {files_max}: delete some", param="file"
        )
    if taken.bytes + size > bytes_max:
        raise InvalidRequest(
            f"this key's files take {taken.bytes} bytes, and may take {bytes_max}: delete some",
            param="file",
        )


def keep(
    connection: sqlite3.Connection, file: StoredFile, *, bytes_max: int, files_max: int
) -> None:
    """Write the row of a file that has arrived.

    Raises:
        InvalidRequest: the key would have more than it may have.
    """
    taken = used(connection, file.key_id)
    require_room(taken, file.bytes, bytes_max=bytes_max, files_max=files_max)
    insert(connection, file)


def insert(connection: sqlite3.Connection, file: StoredFile) -> None:
    """Write a file's row."""
    connection.execute(INSERT, astuple(file))


def end_batch(
    connection: sqlite3.Connection, batch: batches.Batch, made: list[StoredFile], now_us: int
) -> None:
    """Write that a batch has ended, together with the files that its key gets."""
    for file in made:
        connection.execute(INSERT_ONCE, astuple(file))  # it may be said again, after an error
    batches.end(connection, batch, now_us)


def find(connection: sqlite3.Connection, key_id: str, file_id: str) -> StoredFile | None:
    """Return a file of a key, or None if this key has none with this id."""
    row = connection.execute(f"{SELECT} WHERE id = ? AND key_id = ?", (file_id, key_id)).fetchone()
    return None if row is None else StoredFile(*row)


def page(
    connection: sqlite3.Connection,
    key_id: str,
    *,
    purpose: str | None,
    after: StoredFile | None,
    limit: int,
) -> list[StoredFile]:
    """Return up to `limit` of a key's files, the newest first; those older than `after`."""
    rows = connection.execute(
        SELECT + PAGE,
        {
            "key": key_id,
            "purpose": purpose,
            "after": None if after is None else after.id,
            "after_us": None if after is None else after.created_us,
            "limit": limit,
        },
    )
    return [StoredFile(*row) for row in rows]


def delete(connection: sqlite3.Connection, key_id: str, file_id: str) -> None:
    """Delete the row of a key's file.

    Raises:
        FileNotFound: this key has none with this id.
        InvalidRequest: a batch that has not ended reads it.
    """
    if find(connection, key_id, file_id) is None:
        raise FileNotFound(file_id)
    reader = batches.reader(connection, key_id, file_id)
    if reader is not None:
        raise InvalidRequest(f"{reader} reads this file: wait for its end, or cancel it")
    connection.execute("DELETE FROM files WHERE id = ?", (file_id,))


def expire(connection: sqlite3.Connection, now_us: int, rows_max: int) -> list[str]:
    """Delete rows whose time is over, or whose keys were revoked; return the ids of the files.

    What a batch reads that has not ended stays. Of revoked keys the batches are forgotten, too.
    """
    connection.execute(FORGOTTEN)
    rows = connection.execute(EXPIRED, {"now": now_us, "limit": rows_max}).fetchall()
    connection.executemany("DELETE FROM files WHERE id = ?", rows)
    return [name for (name,) in rows]


def names(connection: sqlite3.Connection) -> set[str]:
    """Return the ids of all files."""
    return {name for (name,) in connection.execute("SELECT id FROM files")}
