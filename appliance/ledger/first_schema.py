"""First schema: the tables of the first version, and their conversion to double entry.

Owns what only a database made by the first version needs.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

from appliance.core.clock import utc_day
from appliance.ledger import transfer
from appliance.ledger.transfer import Transfer
from appliance.store.database import execute_statements

TABLES = (
    """
    CREATE TABLE accounts (
        key_id TEXT PRIMARY KEY REFERENCES keys (id),
        unlimited INTEGER NOT NULL CHECK (unlimited IN (0, 1)),
        posted INTEGER NOT NULL DEFAULT 0,
        held INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
        day INTEGER NOT NULL DEFAULT 0,
        spent_today INTEGER NOT NULL DEFAULT 0 CHECK (spent_today >= 0),
        CHECK (unlimited = 1 OR posted - held >= 0)
    ) STRICT
    """,
    """
    CREATE TABLE holds (
        id INTEGER PRIMARY KEY,
        key_id TEXT NOT NULL REFERENCES accounts (key_id),
        amount INTEGER NOT NULL CHECK (amount >= 0),
        state TEXT NOT NULL CHECK (state IN ('open', 'settled', 'released')),
        request_id TEXT NOT NULL,
        model TEXT NOT NULL,
        tier TEXT NOT NULL CHECK (tier IN ('realtime', 'batch')),
        units INTEGER NOT NULL CHECK (units >= 0),
        opened_us INTEGER NOT NULL,
        resolved_us INTEGER,
        CHECK ((state = 'open') = (resolved_us IS NULL))
    ) STRICT
    """,
    """
    CREATE TABLE entries (
        seq INTEGER PRIMARY KEY,
        key_id TEXT NOT NULL REFERENCES accounts (key_id),
        kind TEXT NOT NULL CHECK (kind IN ('grant', 'charge')),
        amount INTEGER NOT NULL CHECK (amount >= 0),
        hold_id INTEGER UNIQUE REFERENCES holds (id),
        request_id TEXT,
        model TEXT,
        tier TEXT,
        units INTEGER,
        at_us INTEGER NOT NULL,
        CHECK ((kind = 'charge') = (hold_id IS NOT NULL))
    ) STRICT
    """,
)

ADD_USAGE = """
    INSERT INTO usage_days (day, account, model, tier, calls, units, amount)
    VALUES (?, ?, ?, ?, 1, ?, ?)
    ON CONFLICT DO UPDATE SET calls = calls + 1, units = units + excluded.units,
        amount = amount + excluded.amount
"""
"""With the columns that the table has after the second step."""


@dataclass(frozen=True, slots=True)
class OldBooks:
    """The content of the first tables."""

    accounts: list[Any]
    entries: list[Any]
    holds_max: int


def take(connection: sqlite3.Connection) -> OldBooks:
    """Return the content of the first tables, and drop them; open holds are released."""
    accounts = connection.execute("SELECT key_id, unlimited FROM accounts").fetchall()
    entries = connection.execute(
        "SELECT kind, key_id, amount, at_us, hold_id, tier, units, model, request_id"
        " FROM entries ORDER BY seq"
    ).fetchall()
    [(holds_max,)] = connection.execute("SELECT COALESCE(MAX(id), 0) FROM holds").fetchall()
    execute_statements(
        connection, [f"DROP TABLE {table}" for table in ("entries", "holds", "accounts")]
    )
    return OldBooks(accounts, entries, holds_max)


def rewrite(connection: sqlite3.Connection, old: OldBooks) -> None:
    """Write the content of the first tables as transfers, and the balances that follow."""
    connection.executemany(
        "INSERT INTO accounts (id, key_id, kind) VALUES (?1, ?1, ?2)",
        [(key, "unlimited" if unlimited else "prepaid") for key, unlimited in old.accounts],
    )
    for kind, key, amount, at_us, hold_id, tier, units, model, request_id in old.entries:
        debit, credit = ("issued", key) if kind == "grant" else (key, "revenue")
        row = Transfer(
            0, kind, debit, credit, amount, at_us, hold_id, tier=tier, units=units, model=model
        )
        transfer.write(connection, row, request_id)
        spent = amount if kind == "charge" else 0
        transfer.move(connection, debit, now_us=at_us, posted=-amount, spent=spent)
        transfer.move(connection, credit, now_us=at_us, posted=amount)
        if kind == "charge":
            day = utc_day(at_us)
            connection.execute(ADD_USAGE, (day, key, model, tier, units, amount))
    # A hold's id is never used twice.
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('holds', ?)", (old.holds_max,)
    )
