"""IdempotencyStore: calls that their clients may send twice and pay for once.

Owns the table `repeats`: which charge belongs to an Idempotency-Key, for a day, and nothing of the
request or its answer (draft-ietf-httpapi-idempotency-key-header-07; only successful calls are
recorded). A repeated call is computed again, free of charge, a few times: a client that repeats it
for want of an answer needs no more, and one that wants to pay once for many gets no more.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.core.clock import Clock
from appliance.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused, IdempotencyKeySpent
from appliance.core.units import Picocredits
from appliance.ledger.entry import BatchLine, Charge, IdempotencyKey, Repeatable
from appliance.store.writer import Writer

KEPT_US = 24 * 3_600 * 1_000_000
"""How long an Idempotency-Key is kept."""
REPLAYS_MAX = 4
"""How often a call is computed again for one charge; clients repeat a call twice by themselves."""


class IdempotencyStore:
    """Distinguishes first calls from repeated ones."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._in_flight: set[tuple[str, bytes]] = set()

    @contextmanager
    def claim(self, key_id: str, idempotency_key: Repeatable) -> Iterator[None]:
        """Let one call at a time have an Idempotency-Key.

        Raises:
            IdempotencyKeyInUse: another call has it.
        """
        claimed = key_id, idempotency_key.token
        if claimed in self._in_flight:
            raise IdempotencyKeyInUse
        self._in_flight.add(claimed)
        try:
            yield
        finally:
            self._in_flight.discard(claimed)

    async def find(self, key_id: str, idempotency_key: Repeatable) -> Charge | None:
        """Return the charge of the first call, or None if this is it.

        Raises:
            IdempotencyKeyReused: the first call had another body.
            IdempotencyKeySpent: it was repeated `REPLAYS_MAX` times.
        """
        if isinstance(idempotency_key, BatchLine):
            return idempotency_key.charge  # read when the batch began: only its runner charges it
        now_us = self._clock.wall_us()
        return await self._writer.run(
            lambda connection: find(connection, key_id, idempotency_key, now_us), durable=False
        )

    async def count(self, charge: Charge) -> None:
        """Count that a call is computed again; before it is, or those that hang up were free."""
        await self._writer.run(lambda connection: count(connection, charge.seq), durable=False)


def find(
    connection: sqlite3.Connection, key_id: str, idempotency_key: IdempotencyKey, now_us: int
) -> Charge | None:
    """Return the charge of the first call; None: none is recorded."""
    row = connection.execute(
        "SELECT fingerprint, seq, amount, until_us, replays FROM repeats JOIN transfers USING (seq)"
        " WHERE account = ? AND token = ?",
        (key_id, idempotency_key.token),
    ).fetchone()
    if row is None or row[3] <= now_us:
        return None
    fingerprint, seq, amount, _, replays = row
    if fingerprint != idempotency_key.fingerprint:
        raise IdempotencyKeyReused
    if replays >= REPLAYS_MAX:
        raise IdempotencyKeySpent(replays_max=REPLAYS_MAX)
    return Charge(seq, Picocredits(amount))


def count(connection: sqlite3.Connection, seq: int) -> None:
    """Count that a call is computed again."""
    connection.execute("UPDATE repeats SET replays = replays + 1 WHERE seq = ?", (seq,))


def keep(
    connection: sqlite3.Connection,
    key_id: str,
    idempotency_key: IdempotencyKey,
    seq: int,
    now_us: int,
) -> None:
    """Record the charge of this call; entries that are older than a day are deleted."""
    drop_old(connection, now_us)
    connection.execute(
        "INSERT INTO repeats (account, token, fingerprint, seq, until_us) VALUES (?, ?, ?, ?, ?)",
        (key_id, idempotency_key.token, idempotency_key.fingerprint, seq, now_us + KEPT_US),
    )


def drop_old(connection: sqlite3.Connection, now_us: int) -> None:
    """Delete the entries that are older than a day."""
    connection.execute("DELETE FROM repeats WHERE until_us <= ?", (now_us,))


def drop(connection: sqlite3.Connection, seq: int) -> None:
    """Delete the entry of a charge that was refunded: its repetition is charged."""
    connection.execute("DELETE FROM repeats WHERE seq = ?", (seq,))
