"""Schema: the tables of the books.

Owns the promises that the database itself keeps: integers only, rows of `entries` never change, a
hold is resolved at most once, a prepaid balance is never below zero. Deliberately holds no queries.
"""

import sqlite3

from appliance.accounts import keyring
from appliance.store.database import Migration, execute_statements

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
    "CREATE INDEX holds_open ON holds (key_id) WHERE state = 'open'",
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
    "CREATE INDEX entries_key ON entries (key_id, at_us)",
    """
    CREATE TRIGGER entries_never_change BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END
    """,
    """
    CREATE TRIGGER entries_never_go BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END
    """,
    """
    CREATE TRIGGER holds_resolve_once BEFORE UPDATE ON holds WHEN OLD.state <> 'open'
    BEGIN SELECT RAISE(ABORT, 'a hold resolves once'); END
    """,
)


def _keys_and_ledger(connection: sqlite3.Connection) -> None:
    execute_statements(connection, (*keyring.TABLES, *TABLES))


MIGRATIONS: tuple[Migration, ...] = (("m001_keys_and_ledger", _keys_and_ledger),)
"""Every step from an empty file to today's tables, oldest first; steps are only ever added."""
