"""Batches: what is to be computed of uploaded files, and how far that is.

Owns the table `batches`, and which charges are for lines whose answers are not written yet: these
stand in `undelivered` beside their line.
"""

import sqlite3
from typing import Literal

import msgspec

from appliance.core.errors import BatchNotFound, InvalidRequest
from appliance.core.units import Picocredits
from appliance.ledger import ledger
from appliance.ledger.delivery_acks import mark
from appliance.ledger.entry import Charge

Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
IS_OPEN = "status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"


class BatchError(msgspec.Struct, frozen=True):
    """Why a batch failed; OpenAI's shape."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Batch(msgspec.Struct, frozen=True):
    """One batch, as its row is."""

    id: str
    key_id: str
    endpoint: str
    """The path that every line asks for."""
    input_file: str
    metadata: dict[str, str]
    status: Status
    created_us: int
    expires_us: int
    output_file: str
    """The id that its answers have, or will have."""
    error_file: str
    """The same of the lines that failed."""
    output_bytes: int = 0
    """So many bytes of its answers are on the disk, whatever happens."""
    error_bytes: int = 0
    total: int = 0
    """Lines; 0 until they were counted."""
    completed: int = 0
    failed: int = 0
    errors: list[BatchError] = []
    in_progress_us: int | None = None
    finalizing_us: int | None = None
    completed_us: int | None = None
    failed_us: int | None = None
    expired_us: int | None = None
    cancelling_us: int | None = None
    cancelled_us: int | None = None

    @property
    def is_open(self) -> bool:
        """Say whether it has not ended."""
        return self.status in ("validating", "in_progress", "finalizing", "cancelling")


FIELDS = Batch.__struct_fields__
COLUMNS = ", ".join(FIELDS)
SELECT = f"SELECT {COLUMNS} FROM batches"  # noqa: S608 - constants
INSERT = f"INSERT INTO batches ({COLUMNS}) VALUES ({', '.join('?' * len(FIELDS))})"  # noqa: S608
CHANGING = [name for name in FIELDS if name not in ("id", "key_id", "metadata", "created_us")]
SET = ", ".join(f"{name} = :{name}" for name in CHANGING)
UPDATE = f"UPDATE batches SET {SET} WHERE id = :id AND {IS_OPEN}"  # noqa: S608 - constants
OPEN_OF_KEY = f"FROM batches WHERE key_id = ? AND {IS_OPEN}"
PAGE = """
    WHERE key_id = :key AND (:after IS NULL OR (created_us, id) < (:after_us, :after))
    ORDER BY created_us DESC, id DESC LIMIT :limit
"""
FORGET = f"""
    DELETE FROM batches WHERE key_id = ?1 AND NOT {IS_OPEN} AND (created_us, id) <= (
        SELECT created_us, id FROM batches WHERE key_id = ?1
        ORDER BY created_us DESC, id DESC LIMIT 1 OFFSET ?2
    )
"""  # noqa: S608 - constants


def insert(connection: sqlite3.Connection, batch: Batch, *, open_max: int, kept_max: int) -> None:
    """Write a new batch; of those that the key had before, `kept_max` are remembered at most.

    Raises:
        InvalidRequest: the key has `open_max` batches that have not ended.
    """
    [(count,)] = connection.execute(
        f"SELECT COUNT(*) {OPEN_OF_KEY}",
        (batch.key_id,),
    )
    if count >= open_max:
        raise InvalidRequest(
            f"this key has {count} batches that have not ended, and may have {open_max}: wait for "
            "one of them, or cancel one"
        )
    connection.execute(INSERT, list(_row(batch).values()))
    connection.execute(FORGET, (batch.key_id, kept_max))


def save(connection: sqlite3.Connection, batch: Batch) -> None:
    """Write what a batch is now; one that has ended stays as it ended."""
    connection.execute(UPDATE, _row(batch))


def end(connection: sqlite3.Connection, batch: Batch, now_us: int) -> None:
    """Write that a batch has ended; what was charged for lines without an answer is given back."""
    for charge in owed(connection, batch.id).values():
        ledger.refund(connection, charge.seq, "refund", now_us)
    save(connection, batch)


def written(connection: sqlite3.Connection, batch: Batch, seqs: list[int]) -> None:
    """Write that answers of a batch are on the disk: the charges for them stay, come what may."""
    mark(connection, seqs)
    save(connection, batch)


def find(connection: sqlite3.Connection, key_id: str, batch_id: str) -> Batch:
    """Return a batch of a key.

    Raises:
        BatchNotFound: this key has none with this id.
    """
    row = connection.execute(f"{SELECT} WHERE id = ? AND key_id = ?", (batch_id, key_id)).fetchone()
    if row is None:
        raise BatchNotFound(batch_id)
    return _from_row(row)


def page(
    connection: sqlite3.Connection, key_id: str, *, after: Batch | None, limit: int
) -> list[Batch]:
    """Return up to `limit` of a key's batches, the newest first; those older than `after`."""
    rows = connection.execute(
        SELECT + PAGE,
        {
            "key": key_id,
            "after": None if after is None else after.id,
            "after_us": None if after is None else after.created_us,
            "limit": limit,
        },
    )
    return [_from_row(row) for row in rows]


def unfinished(connection: sqlite3.Connection) -> list[Batch]:
    """Return every batch that has not ended, the oldest first."""
    rows = connection.execute(f"{SELECT} WHERE {IS_OPEN} ORDER BY created_us, id")
    return [_from_row(row) for row in rows]


def reader(connection: sqlite3.Connection, key_id: str, file_id: str) -> str | None:
    """Return a batch that has not ended and needs a file; None: there is none."""
    row = connection.execute(
        f"SELECT id FROM batches WHERE key_id = ? AND {IS_OPEN} AND input_file = ?",  # noqa: S608
        (key_id, file_id),
    ).fetchone()
    return None if row is None else str(row[0])


def written_bytes(connection: sqlite3.Connection, key_id: str) -> int:
    """Return how many bytes of answers the batches of a key have that have not ended."""
    [(size,)] = connection.execute(
        f"SELECT COALESCE(SUM(output_bytes + error_bytes), 0) {OPEN_OF_KEY}",
        (key_id,),
    )
    return int(size)


def owed(connection: sqlite3.Connection, batch_id: str) -> dict[int, Charge]:
    """Return the charges for lines whose answers are not known to be written, by line."""
    rows = connection.execute(
        "SELECT line, seq, amount FROM undelivered JOIN transfers USING (seq) WHERE batch = ?",
        (batch_id,),
    )
    return {line: Charge(seq, Picocredits(amount)) for line, seq, amount in rows}


def _row(batch: Batch) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(batch, name) for name in FIELDS}
    for name in ("metadata", "errors"):
        row[name] = msgspec.json.encode(row[name]).decode()
    return row


def _from_row(row: tuple[object, ...]) -> Batch:
    named = dict(zip(FIELDS, row, strict=True))
    for name in ("metadata", "errors"):
        named[name] = msgspec.json.decode(str(named[name]))
    return msgspec.convert(named, Batch)
