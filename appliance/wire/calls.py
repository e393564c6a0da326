"""Calls: what a key's holder is told of the calls that were charged. Money is decimal credits."""

from decimal import Decimal

import msgspec


class ChargedView(msgspec.Struct, frozen=True):
    """A call that was charged."""

    at: str
    request_id: str | None
    """None: it was removed."""
    model: str
    tier: str
    units: int
    unit: str
    """tokens or documents."""
    cost: Decimal
    refunded: bool
    """True: its answer was not delivered, and its cost was given back."""


class ChargedPage(msgspec.Struct, frozen=True):
    """Calls, the newest first."""

    data: list[ChargedView]
    next: int | None
    """What `before` is for the calls that come after; None: there are none."""
    object: str = "list"
