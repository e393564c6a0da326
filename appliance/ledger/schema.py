"""Schema: the tables of the books.

Owns the invariants that the database itself enforces: integers only; a transfer has two sides and
is never changed or deleted; a charge is its units times its price; a hold is charged at most once;
a prepaid balance is never below zero.

A hold is no row: it is in memory until it is charged (`Balances`). Its id is unique among charges.
"""

import sqlite3
from collections.abc import Sequence

from appliance.accounts import keyring
from appliance.ledger import added_tables, first_schema
from appliance.store import history
from appliance.store.database import Migration, execute_statements

ISSUED = "issued"
"""The account that grants come from; below zero by all that was ever granted."""
REVENUE = "revenue"
"""The account that charges go to.

Each of the two is the first of a series: when it is full the next one is opened (`issued-2`,
`revenue-2`), because one balance is an int64, which ends at 9.2 million credits.
"""

SMALL = (
    "keys",
    "credentials",
    "accounts",
    "prices",
    "undelivered",
    "repeats",
    "orders",
    "usage_days",
    "checkpoint",
    "opening_balances",
    "files",
    "batches",
)
"""Tables that do not grow with every call: they can be checked entirely at a start."""

TABLES = (
    """
    CREATE TABLE accounts (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('prepaid', 'unlimited', 'system')),
        key_id TEXT REFERENCES keys (id),
        posted INTEGER NOT NULL DEFAULT 0,
        held INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
        day INTEGER NOT NULL DEFAULT 0,
        spent_today INTEGER NOT NULL DEFAULT 0 CHECK (spent_today >= 0),
        CHECK (kind <> 'prepaid' OR posted - held >= 0),
        CHECK ((kind = 'system') = (key_id IS NULL)),
        CHECK (key_id IS NULL OR key_id = id)
    ) STRICT
    """,
    "INSERT INTO accounts (id, kind) VALUES ('issued', 'system'), ('revenue', 'system')",
    """
    CREATE TABLE prices (
        version INTEGER PRIMARY KEY,
        model TEXT NOT NULL,
        unit TEXT NOT NULL CHECK (unit IN ('token', 'document')),
        realtime INTEGER NOT NULL CHECK (realtime >= 0),
        batch INTEGER NOT NULL CHECK (batch >= 0),
        since_us INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX prices_model ON prices (model, version)",
    """
    CREATE TABLE holds (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL REFERENCES accounts (id),
        amount INTEGER NOT NULL CHECK (amount = units * each),
        price INTEGER NOT NULL REFERENCES prices (version),
        tier TEXT NOT NULL CHECK (tier IN ('realtime', 'batch')),
        each INTEGER NOT NULL CHECK (each >= 0),
        units INTEGER NOT NULL CHECK (units >= 0),
        model TEXT NOT NULL,
        request_id TEXT NOT NULL,
        opened_us INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE transfers (
        seq INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('grant', 'charge', 'refund', 'crash_refund')),
        debit TEXT NOT NULL REFERENCES accounts (id),
        credit TEXT NOT NULL REFERENCES accounts (id),
        amount INTEGER NOT NULL CHECK (amount >= 0),
        at_us INTEGER NOT NULL,
        hold_id INTEGER UNIQUE,
        refunds INTEGER UNIQUE REFERENCES transfers (seq),
        price INTEGER REFERENCES prices (version),
        tier TEXT CHECK (tier IN ('realtime', 'batch')),
        each INTEGER CHECK (each >= 0),
        units INTEGER CHECK (units >= 0),
        model TEXT,
        request_id TEXT,
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        CHECK (debit <> credit),
        CHECK (kind <> 'grant' OR debit = 'issued'),
        CHECK (kind <> 'charge' OR credit = 'revenue'),
        CHECK (refunds IS NULL OR debit = 'revenue'),
        CHECK ((kind = 'charge') = (hold_id IS NOT NULL)),
        CHECK ((kind IN ('refund', 'crash_refund')) = (refunds IS NOT NULL)),
        CHECK (kind <> 'charge' OR
            (tier IS NOT NULL AND units IS NOT NULL AND model IS NOT NULL)),
        CHECK ((each IS NULL) = (price IS NULL)),
        CHECK (each IS NULL OR amount = units * each)
    ) STRICT
    """,
    "CREATE INDEX transfers_debit ON transfers (debit, seq)",
    """
    CREATE TABLE undelivered (
        seq INTEGER PRIMARY KEY REFERENCES transfers (seq)
    ) STRICT
    """,
    """
    CREATE TABLE repeats (
        account TEXT NOT NULL REFERENCES accounts (id),
        token BLOB NOT NULL CHECK (length(token) = 32),
        fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
        seq INTEGER NOT NULL UNIQUE REFERENCES transfers (seq),
        until_us INTEGER NOT NULL,
        PRIMARY KEY (account, token)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX repeats_until ON repeats (until_us)",
    """
    CREATE TABLE usage_days (
        day INTEGER NOT NULL,
        account TEXT NOT NULL REFERENCES accounts (id),
        model TEXT NOT NULL,
        tier TEXT NOT NULL,
        calls INTEGER NOT NULL,
        units INTEGER NOT NULL,
        amount INTEGER NOT NULL,
        refunds INTEGER NOT NULL DEFAULT 0,
        refunded INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (day, account, model, tier),
        CHECK (0 <= refunds AND refunds <= calls AND 0 <= refunded AND refunded <= amount)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TRIGGER transfers_never_change BEFORE UPDATE ON transfers
    WHEN NEW.request_id IS NOT NULL OR NEW.seq IS NOT OLD.seq OR NEW.kind IS NOT OLD.kind
        OR NEW.debit IS NOT OLD.debit OR NEW.credit IS NOT OLD.credit
        OR NEW.amount IS NOT OLD.amount OR NEW.at_us IS NOT OLD.at_us
        OR NEW.hold_id IS NOT OLD.hold_id OR NEW.refunds IS NOT OLD.refunds
        OR NEW.price IS NOT OLD.price OR NEW.tier IS NOT OLD.tier OR NEW.each IS NOT OLD.each
        OR NEW.units IS NOT OLD.units OR NEW.model IS NOT OLD.model OR NEW.hash IS NOT OLD.hash
    BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END
    """,
    """
    CREATE TRIGGER transfers_never_go BEFORE DELETE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END
    """,
    """
    CREATE TRIGGER prices_never_change BEFORE UPDATE ON prices
    BEGIN SELECT RAISE(ABORT, 'prices are immutable'); END
    """,
    """
    CREATE TRIGGER prices_never_go BEFORE DELETE ON prices
    BEGIN SELECT RAISE(ABORT, 'prices are immutable'); END
    """,
    """
    CREATE TRIGGER holds_never_change BEFORE UPDATE ON holds
    BEGIN SELECT RAISE(ABORT, 'a hold resolves, it does not change'); END
    """,
)
"""Only a transfer's request id may be removed: the client may have chosen it (see `forget`)."""


SERIES = (
    ("debit = 'issued')", "debit = 'issued' OR debit GLOB 'issued-[0-9]*')"),
    ("credit = 'revenue')", "credit = 'revenue' OR credit GLOB 'revenue-[0-9]*')"),
    ("debit = 'revenue')", "debit = 'revenue' OR debit GLOB 'revenue-[0-9]*')"),
)
"""What m004 changes in the rules of `transfers`: where grants come from and charges go to."""

INDEXES = (
    "CREATE INDEX usage_days_account ON usage_days (account, day)",
    "CREATE INDEX credentials_key ON credentials (key_id)",
)
"""For reads of one key: its usage of every day, and its older credentials."""


def _keys_and_ledger(connection: sqlite3.Connection) -> None:
    execute_statements(connection, (*keyring.TABLES, *first_schema.TABLES))


def _double_entry(connection: sqlite3.Connection) -> None:
    old = first_schema.take(connection)
    execute_statements(connection, TABLES)
    first_schema.rewrite(connection, old)


def _series_of_system_accounts(connection: sqlite3.Connection) -> None:
    """Let grants and charges use a series of accounts, without writing ten million rows again.

    A wider CHECK changes no row, so the text of the table is replaced, in SQLite's own procedure
    for this (sqlite.org/lang_altertable.html#otheralter). An SQLite in its defensive mode, as some
    systems build it, refuses that: there the table is made anew and its rows are copied.
    """
    _change_rules(connection, "transfers", SERIES)
    execute_statements(connection, INDEXES)


def _change_rules(
    connection: sqlite3.Connection, table: str, changes: Sequence[tuple[str, str]]
) -> None:
    """Replace parts of a table's text, each of which is in it once."""
    [(text,)] = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,))
    for before, after in changes:
        assert text.count(before) == 1, text
        text = text.replace(before, after)
    try:
        _replace_text(connection, table, text)
    except sqlite3.OperationalError:
        _copy_rows(connection, table, text)


def _replace_text(connection: sqlite3.Connection, table: str, text: str) -> None:
    [(version,)] = connection.execute("PRAGMA schema_version").fetchall()
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, table))
    connection.execute(f"PRAGMA schema_version = {version + 1}")
    connection.execute("PRAGMA writable_schema = RESET")


def _copy_rows(connection: sqlite3.Connection, table: str, text: str) -> None:
    """Make the table anew, with its rows, triggers and indexes."""
    beside = connection.execute(
        "SELECT sql FROM sqlite_master"
        " WHERE tbl_name = ? AND type IN ('index', 'trigger') AND sql IS NOT NULL",
        (table,),
    ).fetchall()
    # Rows of other tables refer to these; at the commit they are there again.
    connection.execute("PRAGMA defer_foreign_keys = ON")
    connection.execute(f"CREATE TABLE rows_before AS SELECT * FROM {table}")  # noqa: S608 - a constant
    connection.execute(f"DROP TABLE {table}")
    connection.execute(text)
    connection.execute(f"INSERT INTO {table} SELECT * FROM rows_before")  # noqa: S608 - a constant
    connection.execute("DROP TABLE rows_before")
    execute_statements(connection, [sql for (sql,) in beside])


REPETITIONS = (
    "ALTER TABLE repeats ADD COLUMN replays INTEGER NOT NULL DEFAULT 0 CHECK (replays >= 0)",
    """
    CREATE TABLE orders (
        token BLOB PRIMARY KEY CHECK (length(token) = 32),
        fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
        key_id TEXT NOT NULL REFERENCES keys (id),
        until_us INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX orders_until ON orders (until_us)",
)
"""How often a paid call was repeated, and the operator's orders that are not to be done twice."""


def _repetitions(connection: sqlite3.Connection) -> None:
    execute_statements(connection, REPETITIONS)


NOTHING_HELD = (("posted - held >= 0", "posted >= 0"),)
"""What m006 changes in the rules of `accounts`."""


def _holds_in_memory(connection: sqlite3.Connection) -> None:
    """Release the holds that are open, for the last time: they are rows no more."""
    connection.execute("DROP TABLE holds")
    _change_rules(connection, "accounts", NOTHING_HELD)
    connection.execute("ALTER TABLE accounts DROP COLUMN held")


RETENTION = (
    """
    CREATE TABLE checkpoint (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        seq INTEGER NOT NULL,
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        day INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE opening_balances (
        account TEXT PRIMARY KEY REFERENCES accounts (id),
        posted INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "DROP TRIGGER transfers_never_go",
    """
    CREATE TRIGGER transfers_never_go BEFORE DELETE ON transfers
    WHEN OLD.seq > (SELECT COALESCE(MAX(seq), 0) FROM checkpoint)
    BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END
    """,
    """
    CREATE TRIGGER checkpoint_never_goes_back BEFORE UPDATE ON checkpoint WHEN NEW.seq <= OLD.seq
    BEGIN SELECT RAISE(ABORT, 'what was removed stays so'); END
    """,
    """
    CREATE TRIGGER checkpoint_never_goes BEFORE DELETE ON checkpoint
    BEGIN SELECT RAISE(ABORT, 'what was removed stays so'); END
    """,
)
"""What stays of transfers that were removed: the last one's number and hash, and their sums."""


def _retention(connection: sqlite3.Connection) -> None:
    execute_statements(connection, RETENTION)


def _files_and_batches(connection: sqlite3.Connection) -> None:
    execute_statements(connection, added_tables.FILES_AND_BATCHES)


def _histories(connection: sqlite3.Connection) -> None:
    execute_statements(connection, history.TABLES)


def _tokens_of_days(connection: sqlite3.Connection) -> None:
    execute_statements(connection, added_tables.TOKENS_OF_DAYS)


MIGRATIONS: tuple[Migration, ...] = (
    ("m001_keys_and_ledger", _keys_and_ledger),
    ("m002_double_entry", _double_entry),
    ("m003_credentials", keyring.add_credentials),
    ("m004_series_of_system_accounts", _series_of_system_accounts),
    ("m005_repetitions", _repetitions),
    ("m006_holds_in_memory", _holds_in_memory),
    ("m007_retention", _retention),
    ("m008_files_and_batches", _files_and_batches),
    ("m009_histories", _histories),
    ("m010_tokens_of_days", _tokens_of_days),
)
"""Every step from an empty file to today's tables, oldest first; steps are only ever added."""
