"""Books: the store, opened and recovered, and the operator's operations on it.

Owns the order of opening and the pairing of a key's row with its account. Deliberately checks no
words: amounts and names arrive checked.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.accounts import keyring
from appliance.accounts.key import Key
from appliance.accounts.keyring import Keyring
from appliance.core.clock import Clock
from appliance.core.limits import Limits
from appliance.core.units import Picocredits
from appliance.ledger import ledger
from appliance.ledger.entry import Balance
from appliance.ledger.schema import MIGRATIONS
from appliance.store.datadir import DataDir
from appliance.store.writer import Operation, Writer


@dataclass(frozen=True, slots=True)
class Books:
    """The store, opened and recovered, with every key in memory."""

    writer: Writer
    keyring: Keyring
    released: int
    """Holds that the last process left open; they cost nothing."""


@contextmanager
def open_books(directory: DataDir, clock: Clock, limits: Limits) -> Iterator[Books]:
    """Open the store of a locked data directory; close it at the end of the block.

    Raises:
        StoreFailed: the database is damaged, foreign or newer than this program.
    """
    writer = Writer(directory.database, MIGRATIONS, writes_max=limits.writes_max)
    try:
        now_us = clock.wall_us()
        released = writer.call(lambda connection: ledger.recover(connection, now_us))
        keys = writer.call(keyring.load, durable=False)
        yield Books(writer, Keyring(keys, keys_max=limits.keys_max), released)
    finally:
        writer.close()


def mint(key: Key, granted: Picocredits, now_us: int) -> Operation[None]:
    """Write a key, its account and its first credits, all or nothing."""

    def write(connection: sqlite3.Connection) -> None:
        keyring.insert(connection, key)
        ledger.open_account(connection, key.id, unlimited=key.unlimited)
        if granted:
            ledger.grant(connection, key.id, granted, now_us)

    return write


def top_up(key_id: str, amount: Picocredits, now_us: int) -> Operation[None]:
    """Add credits to a key."""
    return lambda connection: ledger.grant(connection, key_id, amount, now_us)


def revoke(key_id: str, now_us: int) -> Operation[None]:
    """Write that a key is revoked."""
    return lambda connection: keyring.mark_revoked(connection, key_id, now_us)


def balances(key_ids: Sequence[str], now_us: int) -> Operation[list[Balance]]:
    """Read the balances of keys, in their order."""
    return lambda connection: [
        ledger.read_balance(connection, key_id, now_us) for key_id in key_ids
    ]
