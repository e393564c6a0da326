"""Entry: the values that the ledger takes and returns.

Owns the immutable shapes of purchases, holds, charges, balances and statements.
"""

from dataclasses import dataclass

from appliance.core.units import Picocredits
from appliance.pricing.tariff import Tier


@dataclass(frozen=True, slots=True)
class Balance:
    """One key's money at one moment."""

    posted: Picocredits
    """Grants and refunds less charges; below zero only for unlimited keys."""
    held: Picocredits
    """Reserved for calls in flight."""
    spent_today: Picocredits
    """Charges of this UTC day less what of them was refunded."""
    unlimited: bool

    @property
    def available(self) -> int:
        """What a new call may cost."""
        return self.posted - self.held


@dataclass(frozen=True, slots=True)
class Statement:
    """One key's balance at one moment, and the time of its last charge."""

    balance: Balance
    charged_us: int | None
    """None: it was never charged."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a call buys, before it is computed; its price does not change afterwards."""

    key_id: str
    request_id: str
    model: str
    tier: Tier
    units: int
    """Tokens or documents."""
    each: Picocredits
    """For one of them."""
    price: int
    """The version of the price list with this price."""
    daily_budget: Picocredits | None
    tokens: int = 0
    """`usage.total_tokens` of the answer: counted in sums of days, and not what is paid for."""

    @property
    def amount(self) -> Picocredits:
        """The exact price."""
        return Picocredits(self.units * self.each)


@dataclass(frozen=True, slots=True)
class Hold:
    """Reserved credits; it is settled or released exactly once."""

    id: int
    purchase: Purchase

    @property
    def key_id(self) -> str:
        """The key that pays."""
        return self.purchase.key_id

    @property
    def amount(self) -> Picocredits:
        """What is reserved."""
        return self.purchase.amount


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Identifies a call that its client may send twice; contains nothing of its content."""

    token: bytes
    """SHA-256 of the client's Idempotency-Key."""
    fingerprint: bytes
    """Of the body: equal exactly if the bodies are, 32 bytes."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A hold that was settled."""

    seq: int
    """The transfer's number in the books."""
    amount: Picocredits


@dataclass(frozen=True, slots=True)
class BatchLine:
    """Identifies a call that is a line of a batch.

    Its charge stays undelivered until the answer stands durably in the batch's results. Until then
    the books know whose it is, so that a crash does not give it back: the line is computed again
    for nothing.
    """

    batch: str
    line: int
    charge: Charge | None = None
    """What was charged for it already, by a process that ended before the answer was written."""

    @property
    def token(self) -> bytes:
        """What one call at a time may have."""
        return f"{self.batch} {self.line}".encode()


Repeatable = IdempotencyKey | BatchLine
"""How a call is known again when it comes twice."""
