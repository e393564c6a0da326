"""Transfer: money from one account to another, chained to the transfer before it.

Owns the only SQL that writes transfers and moves balances, and the hash chain: each row's hash
covers the row and the hash before it, so that a row that was changed, or one that is gone from the
middle, is found. Deliberately knows no holds and no calls.
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


class Tip(NamedTuple):
    """The last transfer."""

    seq: int
    hash: bytes


COLUMNS = ", ".join(Transfer._fields)
INSERT = (
    f"INSERT INTO transfers ({COLUMNS}, request_id, hash)"  # noqa: S608 - constants
    f" VALUES ({', '.join('?' * (len(Transfer._fields) + 2))})"
)
SELECT = f"SELECT {COLUMNS} FROM transfers"  # noqa: S608 - constants
_BALANCE = "posted, held, day, spent_today, kind = 'unlimited'"
MOVE = f"""
    UPDATE accounts SET posted = posted + :posted, held = held + :held,
        spent_today = CASE WHEN :spent = 0 THEN spent_today
            ELSE MAX(0, CASE day WHEN :day THEN spent_today ELSE 0 END + :spent) END,
        day = CASE WHEN :spent = 0 THEN day ELSE :day END
    WHERE id = :id RETURNING {_BALANCE}
"""  # noqa: S608 - constants


def tip(connection: sqlite3.Connection) -> Tip:
    """Return the last transfer, number 0 when there is none."""
    row = connection.execute("SELECT seq, hash FROM transfers ORDER BY seq DESC LIMIT 1").fetchone()
    return Tip(0, GENESIS) if row is None else Tip(*row)


def chained(before: bytes, transfer: Transfer) -> bytes:
    """Return the hash of a transfer that follows one with the hash `before`."""
    return hashlib.sha256(before + msgspec.json.encode(tuple(transfer))).digest()


def write(connection: sqlite3.Connection, transfer: Transfer, request_id: str | None) -> int:
    """Append a transfer, numbered and chained; return its number. `transfer.seq` is ignored."""
    last = tip(connection)
    row = transfer._replace(seq=last.seq + 1)
    connection.execute(INSERT, (*row, request_id, chained(last.hash, row)))
    return row.seq


def move(
    connection: sqlite3.Connection, account: str, *, now_us: int, posted: int = 0, held: int = 0,
    spent: int = 0,
) -> Balance:  # fmt: skip
    """Change an account's cached balance by what was written beside it; return what it is now."""
    # A clock that was set back by days begins a day anew: what is given back then was not counted.
    day = utc_day(now_us)
    row = connection.execute(
        MOVE, {"posted": posted, "held": held, "spent": spent, "day": day, "id": account}
    ).fetchone()
    assert row is not None, account
    return _balance(row, day)


def read_balance(connection: sqlite3.Connection, key_id: str, now_us: int) -> Balance:
    """Return a key's balance.

    Raises:
        KeyNotFound: no account has this id.
    """
    row = connection.execute(
        f"SELECT {_BALANCE} FROM accounts WHERE key_id = ?",  # noqa: S608 - constants
        (key_id,),
    ).fetchone()
    if row is None:
        raise KeyNotFound(key_id)
    return _balance(row, utc_day(now_us))


def broken_links(connection: sqlite3.Connection, *, after: int = 0) -> Iterator[int]:
    """Yield the number of each transfer later than `after` that is not what was written.

    A number that is missing breaks the link of the next one.
    """
    row = connection.execute("SELECT hash FROM transfers WHERE seq = ?", (after,)).fetchone()
    before, expected = (GENESIS if row is None else row[0]), after + 1
    rows = connection.execute(
        f"SELECT hash, {COLUMNS} FROM transfers WHERE seq > ? ORDER BY seq",  # noqa: S608
        (after,),
    )
    for found, *columns in rows:
        transfer = Transfer(*columns)
        if transfer.seq != expected or found != chained(before, transfer):
            yield transfer.seq
        before, expected = found, transfer.seq + 1


def _balance(row: tuple[int, int, int, int, int], today: int) -> Balance:
    posted, held, day, spent_today, unlimited = row
    return Balance(
        posted=Picocredits(posted),
        held=Picocredits(held),
        spent_today=Picocredits(spent_today if day == today else 0),
        unlimited=bool(unlimited),
    )
