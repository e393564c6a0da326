"""Transfer: money from one account to another, chained to the transfer before it.

Owns the only SQL that writes transfers and moves balances, and the hash chain: each row's hash
covers the row and the hash before it, so that a row that was changed, or one that is gone from the
middle, is found.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from appliance.core.clock import utc_day
from appliance.core.errors import KeyNotFound
from appliance.core.units import Picocredits
from appliance.ledger.entry import Balance
from appliance.store.database import has_table

GENESIS = bytes(32)
"""What the first transfer's hash covers in place of one before it."""


class Transfer(NamedTuple):
    """One row, in the order in which its hash covers it; `request_id` may be forgotten."""

    seq: int
    kind: str
    debit: str
    """The account that the money leaves."""
    credit: str
    """The account that it reaches."""
    amount: int
    at_us: int
    hold_id: int | None = None
    refunds: int | None = None
    """The charge that is given back."""
    price: int | None = None
    tier: str | None = None
    each: int | None = None
    units: int | None = None
    model: str | None = None


class ChainTip(NamedTuple):
    """The last transfer."""

    seq: int
    hash: bytes


COLUMNS = ", ".join(Transfer._fields)
INSERT = (
    f"INSERT INTO transfers ({COLUMNS}, request_id, hash)"  # noqa: S608 - constants
    f" VALUES ({', '.join('?' * (len(Transfer._fields) + 2))})"
)
SELECT = f"SELECT {COLUMNS} FROM transfers"  # noqa: S608 - constants
_SPENT = """
    CASE accounts.day WHEN :day THEN spent_today ELSE (
        SELECT COALESCE(SUM(amount - refunded), 0) FROM usage_days
        WHERE usage_days.day = :day AND account = accounts.id
    ) END
"""
"""What an account spent on a day; the sum is asked for once a day, or when the clock was set."""
_BALANCE = f"posted, held, {_SPENT}, kind = 'unlimited'"
MOVE = f"""
    UPDATE accounts SET posted = posted + :posted, held = held + :held,
        spent_today = {_SPENT} + :spent, day = :day
    WHERE id = :id RETURNING {_BALANCE}
"""  # noqa: S608 - constants


def chain_tip(connection: sqlite3.Connection) -> ChainTip:
    """Return the last transfer, number 0 when there is none."""
    row = connection.execute("SELECT seq, hash FROM transfers ORDER BY seq DESC LIMIT 1").fetchone()
    return ChainTip(0, GENESIS) if row is None else ChainTip(*row)


def hash_of(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """Return the hash of a transfer, or None if it is not there."""
    if not has_table(connection, "transfers"):
        return None
    row = connection.execute("SELECT hash FROM transfers WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else bytes(row[0])


def chained(before: bytes, transfer: Transfer) -> bytes:
    """Return the hash of a transfer that follows one with the hash `before`."""
    return hashlib.sha256(before + msgspec.json.encode(tuple(transfer))).digest()


def write(connection: sqlite3.Connection, transfer: Transfer, request_id: str | None) -> int:
    """Append a transfer, numbered and chained; return its number. `transfer.seq` is ignored."""
    last = chain_tip(connection)
    row = transfer._replace(seq=last.seq + 1)
    connection.execute(INSERT, (*row, request_id, chained(last.hash, row)))
    return row.seq


def move(
    connection: sqlite3.Connection,
    account: str,
    *,
    now_us: int,
    posted: int = 0,
    held: int = 0,
    spent: int = 0,
) -> Balance:
    """Change an account's cached balance by what was written beside it; return what it is now."""
    row = connection.execute(
        MOVE,
        {"posted": posted, "held": held, "spent": spent, "day": utc_day(now_us), "id": account},
    ).fetchone()
    assert row is not None, account
    return _balance(row)


def read_balance(connection: sqlite3.Connection, key_id: str, now_us: int) -> Balance:
    """Return a key's balance.

    Raises:
        KeyNotFound: no account has this id.
    """
    row = connection.execute(
        f"SELECT {_BALANCE} FROM accounts WHERE key_id = :id",  # noqa: S608 - constants
        {"day": utc_day(now_us), "id": key_id},
    ).fetchone()
    if row is None:
        raise KeyNotFound(key_id)
    return _balance(row)


def broken_links(connection: sqlite3.Connection, *, after: int = 0) -> Iterator[int]:
    """Yield the number of each transfer later than `after` that is not what was written.

    A number that is missing breaks the link of the next one.
    """
    before, expected = hash_of(connection, after) or GENESIS, after + 1
    rows = connection.execute(
        f"SELECT hash, {COLUMNS} FROM transfers WHERE seq > ? ORDER BY seq",  # noqa: S608
        (after,),
    )
    for found, *columns in rows:
        transfer = Transfer(*columns)
        if transfer.seq != expected or found != chained(before, transfer):
            yield transfer.seq
        before, expected = found, transfer.seq + 1


def last_charge_us(connection: sqlite3.Connection, key_id: str) -> int | None:
    """Return when a key was charged last, or None."""
    row = connection.execute(
        "SELECT at_us FROM transfers WHERE debit = ? ORDER BY seq DESC LIMIT 1", (key_id,)
    ).fetchone()
    return None if row is None else int(row[0])


def _balance(row: tuple[int, int, int, int]) -> Balance:
    posted, held, spent_today, unlimited = row
    return Balance(
        posted=Picocredits(posted),
        held=Picocredits(held),
        spent_today=Picocredits(spent_today),
        unlimited=bool(unlimited),
    )
