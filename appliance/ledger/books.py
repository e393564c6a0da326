"""Books: the database, opened, audited and recovered, and the operator's operations on it.

Owns the order of opening, and that a key's row and its account are written together. Names and
amounts were validated before.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.accounts import keyring
from appliance.accounts.key import Key
from appliance.accounts.keyring import Keyring
from appliance.core.clock import Clock, SteadyClock
from appliance.core.errors import StoreFailed
from appliance.core.limits import Limits
from appliance.core.units import Picocredits
from appliance.ledger import audit, ledger, orders, rollback_guard
from appliance.ledger.audit_record import AuditRecord
from appliance.ledger.balances import Balances
from appliance.ledger.orders import Repeatable
from appliance.ledger.recovery import Recovered, recover
from appliance.ledger.rollback_guard import RollbackGuard
from appliance.ledger.schema import MIGRATIONS, SMALL
from appliance.store.database import WAY_OUT, has_table, index_problem
from appliance.store.datadir import DataDir
from appliance.store.reserve import Reserve
from appliance.store.write_request import Operation
from appliance.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Books:
    """The open database, and every key with its balance in memory."""

    writer: Writer
    balances: Balances
    keyring: Keyring
    clock: Clock
    """Never earlier than the last time in the books."""
    recovered: Recovered
    audited: AuditRecord


@contextmanager
def open_books(directory: DataDir, clock: Clock, limits: Limits) -> Iterator[Books]:
    """Open the database of a locked data directory; close it at the end of the block.

    Raises:
        StoreFailed: the database is damaged, another program's, missing, behind its rollback guard,
            newer than this program, or its books do not agree.
    """
    rollback_guard.require_database(directory.database, directory.rollback_guard)
    with RollbackGuard(directory.rollback_guard) as file:
        steady = SteadyClock(clock, file.found.seen_us if file.found else 0)
        balances = Balances(directory.database)
        writer = Writer(
            directory.database,
            MIGRATIONS,
            writes_max=limits.writes_max,
            reserve=Reserve(directory.reserve, limits.reserve_bytes, clock),
            inspect=lambda connection: _inspect(connection, directory, file),
            follow=balances.follow,
            committed=lambda connection: file.follow(connection, steady.wall_us()),
        )
        try:
            now_us = steady.wall_us()
            recovered = writer.call(lambda connection: recover(connection, now_us))
            writer.call(balances.load, durable=False)
            keys = writer.call(keyring.load, durable=False)
            ring = Keyring(keys, keys_max=limits.keys_max)
            yield Books(writer, balances, ring, steady, recovered, AuditRecord(opened_us=now_us))
        finally:
            writer.close()


def _inspect(connection: sqlite3.Connection, directory: DataDir, file: RollbackGuard) -> None:
    """Refuse books that were rolled back, are damaged, or do not agree."""
    file.require(connection, directory.database)
    if not has_table(connection, "transfers"):
        return  # older than double entry, or interrupted while it was created
    verdicts = (index_problem(connection, table) for table in SMALL if has_table(connection, table))
    found = [verdict for verdict in verdicts if verdict != "ok"]
    found = found or audit.problems(connection, links=audit.LINKS_AT_START)
    if not found and has_table(connection, "credentials"):
        found = keyring.problems(connection)
    if found:
        raise StoreFailed(
            f"{directory.database}: the books do not agree ({found[0]}). Nothing was changed; "
            f"{WAY_OUT}"
        )


def mint(
    key: Key, granted: Picocredits, now_us: int, repeatable: Repeatable | None = None
) -> Operation[str | None]:
    """Write a key, its account and its first grant, all of them or none.

    The operation returns the id of the key that the order made before, and writes nothing then.
    """

    def write(connection: sqlite3.Connection) -> None:
        keyring.insert(connection, key)
        ledger.open_account(connection, key.id, unlimited=key.unlimited)
        if granted:
            ledger.grant(connection, key.id, granted, now_us)

    return _once(repeatable, key.id, now_us, write)


def top_up(
    key_id: str, amount: Picocredits, now_us: int, repeatable: Repeatable | None = None
) -> Operation[str | None]:
    """Add credits to a key, unless the order did it before: then the operation returns its id."""
    return _once(
        repeatable,
        key_id,
        now_us,
        lambda connection: ledger.grant(connection, key_id, amount, now_us),
    )


def _once(
    repeatable: Repeatable | None, key_id: str, now_us: int, write: Operation[None]
) -> Operation[str | None]:
    """Write once for each order, and record that in the same transaction."""

    def operation(connection: sqlite3.Connection) -> str | None:
        if repeatable is not None:
            done = orders.find(connection, repeatable, now_us)
            if done is not None:
                return done
        write(connection)
        if repeatable is not None:
            orders.keep(connection, repeatable, key_id, now_us)
        return None

    return operation


def revoke(key_id: str, now_us: int) -> Operation[None]:
    """Write that a key is revoked."""
    return lambda connection: keyring.mark_revoked(connection, key_id, now_us)
