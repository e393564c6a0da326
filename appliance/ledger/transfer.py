"""Transfer: money from one account to another, chained to the transfer before it.

Owns the only SQL that writes transfers and changes balances, and the hash chain: each row's hash
covers the row and the hash before it, so that a changed row or one that is missing is found.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from appliance.core.clock import utc_day
from appliance.core.errors import KeyNotFound
from appliance.core.units import PICOCREDITS_PER_CREDIT, Picocredits
from appliance.ledger.entry import Balance, Statement
from appliance.store.database import has_table
from appliance.store.error_class import numbers_of_64_bits

GENESIS = bytes(32)
"""The hash before the first transfer."""


class Transfer(NamedTuple):
    """One row, in the order in which it is hashed; without `request_id`, which may be removed."""

    seq: int
    kind: str
    debit: str
    """The account whose balance decreases."""
    credit: str
    """The account whose balance increases."""
    amount: int
    at_us: int
    hold_id: int | None = None
    refunds: int | None = None
    """The charge that is refunded."""
    price: int | None = None
    tier: str | None = None
    each: int | None = None
    units: int | None = None
    model: str | None = None


class ChainTip(NamedTuple):
    """The last transfer."""

    seq: int
    hash: bytes


class Checkpoint(NamedTuple):
    """The last transfer that was removed; number 0 and day -1: none was."""

    seq: int = 0
    hash: bytes = GENESIS
    day: int = -1
    """The last day of which any was removed."""


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
"""What an account spent on a day; the sum is computed only if the account's day is another one."""
_CHARGED = """
    COALESCE(
        (SELECT at_us FROM transfers WHERE debit = accounts.id ORDER BY seq DESC LIMIT 1),
        (SELECT MAX(day) * 86400000000 FROM usage_days WHERE account = accounts.id)
    )
"""
"""When an account was charged last; of one whose rows were removed, the day."""
_BALANCE = f"posted, {_SPENT}, kind = 'unlimited'"
MOVE = f"""
    UPDATE accounts SET posted = posted + :posted,
        spent_today = {_SPENT} + :spent, day = :day
    WHERE id = :id
"""  # noqa: S608 - constants


BALANCE = f"SELECT {_BALANCE} FROM accounts WHERE id = :id AND kind <> 'system'"  # noqa: S608 - constants
STATEMENTS = f"SELECT id, {_CHARGED}, {_BALANCE} FROM accounts WHERE kind <> 'system'"  # noqa: S608 - constants
POSTED_MAX = 8_000_000 * PICOCREDITS_PER_CREDIT
"""No balance is further from zero: int64 ends at 9.2 million credits."""
WITH_ROOM = """
    SELECT id FROM accounts
    WHERE id >= :first AND id < :first || '.' AND kind = 'system' AND abs(posted) <= :posted_max
    LIMIT 1
"""
"""One of a series of accounts (`issued`, `issued-2`); '.' follows '-' in the order of text."""


def chain_tip(connection: sqlite3.Connection) -> ChainTip:
    """Return the last transfer, number 0 when there is none."""
    row = connection.execute(
        "SELECT seq, hash FROM transfers WHERE seq = (SELECT MAX(seq) FROM transfers)"
    ).fetchone()
    return ChainTip(0, GENESIS) if row is None else ChainTip(*row)


def checkpoint(connection: sqlite3.Connection) -> Checkpoint:
    """Return the last transfer that was removed (see `retention`)."""
    row = None
    if has_table(connection, "checkpoint"):
        row = connection.execute("SELECT seq, hash, day FROM checkpoint").fetchone()
    return Checkpoint() if row is None else Checkpoint(*row)


def opening_balances(connection: sqlite3.Connection) -> Counter[str]:
    """Return what each account had when the first transfer that is left was written."""
    if not has_table(connection, "opening_balances"):
        return Counter()
    return Counter(dict(connection.execute("SELECT account, posted FROM opening_balances")))


def hash_of(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """Return the hash of a transfer, or None if it is not there."""
    if not has_table(connection, "transfers"):
        return None
    row = connection.execute("SELECT hash FROM transfers WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        removed = checkpoint(connection)
        return removed.hash if removed.seq == seq else None
    return bytes(row[0])


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
    spent: int = 0,
) -> None:
    """Change an account's balance by what its transfers say."""
    with numbers_of_64_bits():
        moved = connection.execute(
            MOVE, {"posted": posted, "spent": spent, "day": utc_day(now_us), "id": account}
        )
    assert moved.rowcount == 1, account


def read_balance(connection: sqlite3.Connection, key_id: str, now_us: int) -> Balance:
    """Return a key's balance in the books, which know of no holds.

    Raises:
        KeyNotFound: no account has this id.
    """
    row = connection.execute(BALANCE, {"day": utc_day(now_us), "id": key_id}).fetchone()
    if row is None:
        raise KeyNotFound(key_id)
    return _balance(row)


def read_statement(connection: sqlite3.Connection, key_id: str, now_us: int) -> Statement:
    """Return a key's balance in the books and when it was charged last.

    Raises:
        KeyNotFound: no account has this id.
    """
    row = connection.execute(
        f"{STATEMENTS} AND id = :id", {"day": utc_day(now_us), "id": key_id}
    ).fetchone()
    if row is None:
        raise KeyNotFound(key_id)
    return Statement(_balance(row[2:]), row[1])


def read_statements(connection: sqlite3.Connection, now_us: int) -> dict[str, Statement]:
    """Return the statement of every key, by its id."""
    rows = connection.execute(STATEMENTS, {"day": utc_day(now_us)})
    return {row[0]: Statement(_balance(row[2:]), row[1]) for row in rows}


def with_room(connection: sqlite3.Connection, series: str, amount: int) -> str:
    """Return a system account that can take or give an amount: `series`, or a later one of it.

    The next one of the series is opened if all others are full.
    """
    assert 0 <= amount <= POSTED_MAX
    found: tuple[str] | None = connection.execute(
        WITH_ROOM, {"first": series, "posted_max": POSTED_MAX - amount}
    ).fetchone()
    if found is not None:
        return found[0]
    [(count,)] = connection.execute(
        "SELECT COUNT(*) FROM accounts WHERE id >= ?1 AND id < ?1 || '.' AND kind = 'system'",
        (series,),
    )
    opened = f"{series}-{count + 1}"
    connection.execute("INSERT INTO accounts (id, kind) VALUES (?, 'system')", (opened,))
    return opened


def broken_links(connection: sqlite3.Connection, *, after: int = 0) -> Iterator[int]:
    """Yield the number of each transfer later than `after` whose hash does not fit.

    A missing transfer is reported as the one after it.
    """
    removed = checkpoint(connection)
    after = max(after, removed.seq)
    before = removed.hash if after == removed.seq else hash_of(connection, after) or GENESIS
    expected = after + 1
    rows = connection.execute(
        f"SELECT hash, {COLUMNS} FROM transfers WHERE seq > ? ORDER BY seq",  # noqa: S608
        (after,),
    )
    for found, *columns in rows:
        transfer = Transfer(*columns)
        if transfer.seq != expected or found != chained(before, transfer):
            yield transfer.seq
        before, expected = found, transfer.seq + 1


def _balance(row: tuple[int, int, int]) -> Balance:
    posted, spent_today, unlimited = row
    return Balance(
        posted=Picocredits(posted),
        held=Picocredits(0),
        spent_today=Picocredits(spent_today),
        unlimited=bool(unlimited),
    )
