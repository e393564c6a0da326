"""Entry: what the books say about one key.

Owns the frozen shapes that cross from the writer's thread to everyone else. Deliberately has no
behaviour beyond arithmetic.
"""

from dataclasses import dataclass

from appliance.core.units import Picocredits
from appliance.pricing.tariff import Tier


@dataclass(frozen=True, slots=True)
class Balance:
    """One key's money at one moment."""

    posted: Picocredits
    """Grants less charges; below zero only for unlimited keys."""
    held: Picocredits
    """Reserved for calls in flight."""
    spent_today: Picocredits
    """Charges of this UTC day."""
    unlimited: bool

    @property
    def available(self) -> int:
        """What a new call may cost."""
        return self.posted - self.held


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a call wants to buy, before it is computed."""

    key_id: str
    request_id: str
    model: str
    tier: Tier
    units: int
    """Tokens or documents."""
    amount: Picocredits
    daily_budget: Picocredits | None


@dataclass(frozen=True, slots=True)
class Hold:
    """Reserved credits; settle or release it, once."""

    id: int
    key_id: str
    amount: Picocredits
