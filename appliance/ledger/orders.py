"""Orders: the operator's orders that are not to be carried out twice.

Owns the table `orders`: which key an order with an Idempotency-Key was about, for a day. An order
and its row are one transaction. Nothing of the order is kept but a keyed digest.
"""

import hashlib
import sqlite3
from dataclasses import dataclass

from appliance.core.errors import IdempotencyKeyReused
from appliance.ledger.idempotency import KEPT_US


@dataclass(frozen=True, slots=True)
class Repeatable:
    """How an order is known again."""

    token: bytes
    """Of its Idempotency-Key."""
    fingerprint: bytes
    """Of what is ordered, keyed by the Idempotency-Key."""

    @classmethod
    def of(cls, key: str, verb: str, content: bytes) -> "Repeatable":
        """Return it for an Idempotency-Key, a verb with its target, and the order itself."""
        secret = hashlib.sha512(key.encode()).digest()
        fingerprint = hashlib.blake2b(f"{verb}|".encode(), digest_size=32, key=secret)
        fingerprint.update(content)
        return cls(hashlib.sha256(key.encode()).digest(), fingerprint.digest())


def find(connection: sqlite3.Connection, order: Repeatable, now_us: int) -> str | None:
    """Return the key that the order was about when it was carried out; None: it was not.

    Raises:
        IdempotencyKeyReused: another order had this Idempotency-Key.
    """
    row = connection.execute(
        "SELECT fingerprint, key_id FROM orders WHERE token = ? AND until_us > ?",
        (order.token, now_us),
    ).fetchone()
    if row is None:
        return None
    if row[0] != order.fingerprint:
        raise IdempotencyKeyReused
    return str(row[1])


def keep(connection: sqlite3.Connection, order: Repeatable, key_id: str, now_us: int) -> None:
    """Record an order; those that are older than a day are deleted."""
    connection.execute("DELETE FROM orders WHERE until_us <= ?", (now_us,))
    connection.execute(
        "INSERT INTO orders (token, fingerprint, key_id, until_us) VALUES (?, ?, ?, ?)",
        (order.token, order.fingerprint, key_id, now_us + KEPT_US),
    )
