"""Keys: what the operator's API and the command line's `--json` say of keys.

Money is decimal credits, exact.
"""

from decimal import Decimal
from typing import Any

import msgspec

from appliance.core.units import credits_of


class KeyView(msgspec.Struct, frozen=True):
    """A key; never its plaintext."""

    id: str
    name: str
    hint: str
    credit: Decimal | None
    """What is available now; None: unlimited."""
    spent_today: Decimal
    daily_budget: Decimal | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    models: tuple[str, ...] | None
    created: str
    expires: str | None
    revoked: str | None
    scopes: tuple[str, ...] = ()
    retiring: tuple[str, ...] = ()
    """When each older credential that still works stops working."""
    forgotten: str | None = None
    """When its name and credentials were removed; its books stay."""
    last_used: str | None = None
    """When a call of it was charged last."""


class KeyList(msgspec.Struct, frozen=True):
    """Every key."""

    data: list[KeyView]


class Plaintext(msgspec.Struct, frozen=True):
    """The only answer that holds a key's plaintext."""

    id: str
    name: str
    key: str

    def __repr__(self) -> str:
        """Name the key without its plaintext: tracebacks and logs print values."""
        return f"<{type(self).__name__} {self.id}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Say the same to Rich, which prints the values of a traceback's variables."""
        return [("id", self.id)]


class MintedKey(Plaintext, frozen=True):
    """The answer to `mint`."""

    credit: Decimal | None
    daily_budget: Decimal | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    models: tuple[str, ...] | None
    created: str
    expires: str | None
    scopes: tuple[str, ...] = ()


class RotatedKey(Plaintext, frozen=True):
    """The answer to `rotate`: the same key with a new credential."""

    hint: str
    replaced_until: str
    """When the credential that it replaces stops working."""


class MintOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new key shall be; amounts are decimal text, `"unlimited"` for no limit of credit."""

    name: str
    credit: str = "0"
    daily_budget: str | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    models: list[str] | None = None
    expires: str | None = None
    scopes: list[str] | None = None
    """Some of `infer`, `usage` and `admin`; None: the first two."""
    idempotency_key: str | None = None
    """Makes one key of the order, however often it is sent within a day."""


class RotateOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the credential that is replaced still works: `24h` or the like, `0` for no time."""

    overlap: str = "24h"


class ExpireOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a key shall expire, from now: `30d` or the like, or `never`."""

    expires: str


class LimitOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits that a key shall have from now on; null is none, and one that is left out stays."""

    daily_budget: str | msgspec.UnsetType | None = msgspec.UNSET
    """Credits a UTC day, as decimal text."""
    rpm: int | msgspec.UnsetType | None = msgspec.UNSET
    tpm: int | msgspec.UnsetType | None = msgspec.UNSET
    concurrency: int | msgspec.UnsetType | None = msgspec.UNSET
    models: list[str] | msgspec.UnsetType | None = msgspec.UNSET


class TopUpOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credits to add, as decimal text."""

    credit: str
    idempotency_key: str | None = None
    """Adds them once, however often the order is sent within a day."""


def decimal_credits(amount: int | None) -> Decimal | None:
    """Return picocredits as decimal credits; None stays None."""
    return None if amount is None else credits_of(amount)
