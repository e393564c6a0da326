"""Tariff: what a model costs, in exact integers.

Owns the passage from a decimal price in the model's native unit to picocredits for one token or one
document. It knows no accounts and no rounding: a price that is not a whole number of picocredits is
refused when the catalogue is read.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from appliance.core.units import PICOCREDITS_PER_CREDIT, Picocredits, whole_picocredits

TaskKind = Literal["embeddings", "rerank"]
Tier = Literal["realtime", "batch"]
TIERS: tuple[Tier, ...] = ("realtime", "batch")

UNIT_OF: dict[TaskKind, str] = {"embeddings": "1M tokens", "rerank": "1k documents"}
"""The native unit of each task, as `models.toml` and `GET /v1/models` spell it."""

UNIT_SIZE: dict[TaskKind, int] = {"embeddings": 1_000_000, "rerank": 1_000}
"""How many tokens or documents one native unit has."""

PRICE_MAX = Decimal(1000)
"""Credits for one native unit; keeps every product of price and usage inside 64 bits."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """The prices of one model."""

    task: TaskKind
    realtime: Decimal
    """Credits for one native unit."""
    batch: Decimal
    """Credits for one native unit in the batch tier."""

    def __post_init__(self) -> None:
        """Refuse prices that integers cannot carry.

        Raises:
            ValueError: negative, not finite, too large, or finer than one picocredit a token
                or document.
        """
        for tier in TIERS:
            price = getattr(self, tier)
            if not price.is_finite() or not 0 <= price <= PRICE_MAX:
                raise ValueError(f"{tier} must be between 0 and {PRICE_MAX}")
            if whole_picocredits(price, parts=UNIT_SIZE[self.task]) is None:
                raise ValueError(f"{tier} is finer than 10^-12 credits a token or document")

    @property
    def unit(self) -> str:
        """The native unit: `"1M tokens"` or `"1k documents"`."""
        return UNIT_OF[self.task]

    def each(self, tier: Tier) -> Picocredits:
        """Return the picocredits for one token or one document."""
        price = self.realtime if tier == "realtime" else self.batch
        return Picocredits(int(price * PICOCREDITS_PER_CREDIT) // UNIT_SIZE[self.task])

    def quote(self, units: int, *, tier: Tier) -> Picocredits:
        """Return the exact price of `units` tokens or documents."""
        assert units >= 0
        return Picocredits(units * self.each(tier))
