"""Usage: what was sold, by key, model and day, kept as sums.

Owns the table `usage_days`, to which every charge and refund is added in its own transaction, so
that no report reads the transfers.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from appliance.core.clock import utc_day
from appliance.core.units import Picocredits
from appliance.ledger.transfer import Transfer
from appliance.ledger.wide_sum import total, wide_sum
from appliance.store.error_class import numbers_of_64_bits
from appliance.store.reader import reading

By = Literal["day", "model", "key", "tier"]

ADD = """
    INSERT INTO usage_days (day, account, model, tier, calls, units, amount, tokens)
    VALUES (?, ?, ?, ?, 1, ?, ?, ?)
    ON CONFLICT DO UPDATE SET calls = calls + 1, units = units + excluded.units,
        amount = amount + excluded.amount, tokens = tokens + excluded.tokens
"""
TAKE_BACK = """
    UPDATE usage_days SET refunds = refunds + 1, refunded = refunded + ?
    WHERE day = ? AND account = ? AND model = ? AND tier = ?
"""
GROUPS: dict[By, str] = {"day": "day", "model": "model", "key": "account", "tier": "tier"}
ROWS_MAX = 100_000
"""Rows of one report."""
READ = f"""
    WITH sold (
        grouped, model, calls, units, tokens, refunds, high, low, refunded_high, refunded_low
    ) AS (
        SELECT {{group}}, model, SUM(calls), SUM(units), SUM(tokens), SUM(refunds),
            {wide_sum("amount")}, {wide_sum("refunded")}
        FROM usage_days WHERE {{chosen}} GROUP BY 1, 2
    )
    SELECT grouped, SUM(calls), SUM(tokens),
        SUM(CASE WHEN EXISTS (
            SELECT 1 FROM prices WHERE prices.model = sold.model AND unit = 'document'
        ) THEN units ELSE 0 END),
        SUM(high), SUM(low), SUM(refunded_high), SUM(refunded_low), SUM(refunds)
    FROM sold GROUP BY 1 ORDER BY 1 LIMIT :rows
"""  # noqa: S608 - constants
"""A model is sold by the token or by the document: its unit is looked up once for each group."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Charged calls, summed over a group; those that were refunded are included."""

    group: str | int
    """A UTC day since the epoch, a model's id or a key's id."""
    calls: int
    tokens: int
    """Those of rerank included, which is sold by the document; of it not from before m010."""
    documents: int
    amount: int
    """Picocredits charged."""
    refunds: int
    """How many of the calls were refunded."""
    refunded: int
    """Picocredits refunded."""


def add(connection: sqlite3.Connection, charge: Transfer, tokens: int) -> None:
    """Count a charge, and the tokens of its call, on the day of its transfer."""
    row = (
        utc_day(charge.at_us),
        charge.debit,
        charge.model,
        charge.tier,
        charge.units,
        charge.amount,
        tokens,
    )
    with numbers_of_64_bits():
        connection.execute(ADD, row)


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
    chosen = ["day >= :since"]
    if account is not None:
        chosen.append("account = :account")
    if model is not None:
        chosen.append("model = :model")
    rows = connection.execute(
        READ.format(group=GROUPS[by], chosen=" AND ".join(chosen)),
        {"since": since_day, "account": account, "model": model, "rows": ROWS_MAX},
    )
    return [_usage(row) for row in rows]


def charged(path: Path, day: int) -> Picocredits:
    """Return what was charged since a UTC day began; refunds are left in."""
    with reading(path) as connection:
        rows = read(connection, by="day", since_day=day)
    return Picocredits(sum(row.amount for row in rows))


def _usage(row: Sequence[Any]) -> Usage:
    group, calls, tokens, documents, *amounts, refunds = row
    return Usage(
        group,
        calls,
        tokens=tokens,
        documents=documents,
        amount=total(amounts[:2]),
        refunds=refunds,
        refunded=total(amounts[2:]),
    )
