"""Calls: the charges of one key, as its holder is shown them."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

READ = """
    SELECT charge.seq, charge.at_us, charge.request_id, charge.model, charge.tier, charge.units,
        prices.unit = 'document', charge.amount, refund.seq IS NOT NULL
    FROM transfers AS charge
    LEFT JOIN transfers AS refund ON refund.refunds = charge.seq
    LEFT JOIN prices ON prices.version = charge.price
    WHERE charge.debit = ? AND charge.kind = 'charge' AND charge.seq < ?
    ORDER BY charge.seq DESC LIMIT ?
"""
"""By the index over debit and seq: as quick over ten million transfers as over ten."""


@dataclass(frozen=True, slots=True)
class ChargedCall:
    """One charge."""

    seq: int
    at_us: int
    request_id: str | None
    """None: it was removed, or there was none."""
    model: str
    tier: str
    units: int
    is_documents: bool
    amount: int
    """Picocredits."""
    is_refunded: bool
    """True: the answer was not delivered."""


def read(
    connection: sqlite3.Connection, account: str, *, before: int, limit: int
) -> list[ChargedCall]:
    """Return the charges of an account before a transfer, the newest first."""
    rows = connection.execute(READ, (account, before, limit))
    return [_call(row) for row in rows]


def _call(row: Sequence[Any]) -> ChargedCall:
    seq, at_us, request_id, model, tier, units, is_documents, amount, is_refunded = row
    return ChargedCall(
        seq,
        at_us,
        request_id,
        model,
        tier,
        units,
        is_documents=bool(is_documents),
        amount=amount,
        is_refunded=bool(is_refunded),
    )
