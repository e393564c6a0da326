"""Usage: what the operator's API and `gigarouter usage` say of what was sold.

Money is decimal credits, exact.
"""

from decimal import Decimal

import msgspec


class UsageRow(msgspec.Struct, frozen=True):
    """Calls that were answered and charged, summed over one day, model or key."""

    group: str
    """`2026-11-25` (UTC), a model's id, or a key's id."""
    name: str | None
    """The key's name; None for days and models."""
    calls: int
    tokens: int
    """`usage.total_tokens` of these calls: rerank's are included."""
    documents: int
    """That rerank was charged for."""
    credits: Decimal
    """Charged, less what was refunded."""
    refunds: int
    """How many of the calls were given back."""
    refunded: Decimal
    """Credits given back."""


class UsageReport(msgspec.Struct, frozen=True):
    """Rows in the order of their group, and their sum."""

    by: str
    since: str
    """The first UTC day that is counted."""
    key: str | None
    """None: of all keys."""
    model: str | None
    """None: of all models."""
    data: list[UsageRow]
    total: UsageRow
