"""Usage: what was sold, by key, model and day, kept as sums so that it stays quick.

Owns the table `usage_days`, to which every charge and refund is added in its own transaction.
It reads no transfers: ten million of them take seconds.
"""

import sqlite3
from dataclasses import dataclass
from typing import Literal

from appliance.core.clock import utc_day
from appliance.ledger.transfer import Transfer

By = Literal["day", "model", "key"]

ADD = """
    INSERT INTO usage_days (day, account, model, tier, calls, units, amount)
    VALUES (?, ?, ?, ?, 1, ?, ?)
    ON CONFLICT DO UPDATE SET calls = calls + 1, units = units + excluded.units,
        amount = amount + excluded.amount
"""
TAKE_BACK = """
    UPDATE usage_days SET refunds = refunds + 1, refunded = refunded + ?
    WHERE day = ? AND account = ? AND model = ? AND tier = ?
"""
GROUPS: dict[By, str] = {"day": "day", "model": "model", "key": "account"}
ROWS_MAX = 100_000
"""Of one answer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls that were answered and charged, summed over a group. Refunds are within them."""

    group: str | int
    """A UTC day since the epoch, a model's id or a key's id."""
    calls: int
    tokens: int
    documents: int
    amount: int
    """Picocredits charged."""
    refunds: int
    """How many of the calls were given back."""
    refunded: int
    """Picocredits given back."""


def add(connection: sqlite3.Connection, charge: Transfer) -> None:
    """Count a charge on the day of its transfer."""
    connection.execute(
        ADD,
        (
            utc_day(charge.at_us),
            charge.debit,
            charge.model,
            charge.tier,
            charge.units,
            charge.amount,
        ),
    )


def take_back(connection: sqlite3.Connection, charge: Transfer) -> None:
    """Count that a charge was refunded, on the day of the charge."""
    changed = connection.execute(
        TAKE_BACK,
        (charge.amount, utc_day(charge.at_us), charge.debit, charge.model, charge.tier),
    ).rowcount
    assert changed == 1, charge


def read(
    connection: sqlite3.Connection,
    *,
    by: By,
    since_day: int = 0,
    account: str | None = None,
    model: str | None = None,
) -> list[Usage]:
    """Return the sums since a UTC day, of one account or model or of all, in their order."""
    rows = connection.execute(
        f"""
        WITH units (model, unit) AS (SELECT model, MIN(unit) FROM prices GROUP BY model)
        SELECT {GROUPS[by]}, SUM(calls),
            SUM(CASE WHEN unit = 'document' THEN 0 ELSE usage_days.units END),
            SUM(CASE WHEN unit = 'document' THEN usage_days.units ELSE 0 END),
            SUM(amount), SUM(refunds), SUM(refunded)
        FROM usage_days LEFT JOIN units USING (model)
        WHERE day >= :since AND (:account IS NULL OR account = :account)
            AND (:model IS NULL OR usage_days.model = :model)
        GROUP BY 1 ORDER BY 1 LIMIT :rows
        """,  # noqa: S608 - constants
        {"since": since_day, "account": account, "model": model, "rows": ROWS_MAX},
    )
    return [Usage(*row) for row in rows]
