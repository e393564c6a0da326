"""Billing: everything that a paid call needs of the books.

Owns nothing but the grouping.
"""

from dataclasses import dataclass

from appliance.core.clock import Clock
from appliance.ledger.books import Books
from appliance.ledger.delivery_acks import DeliveryAcks
from appliance.ledger.holds import Holds
from appliance.ledger.idempotency import IdempotencyStore
from appliance.ledger.ledger import Ledger
from appliance.ledger.prices import Prices


@dataclass(frozen=True, slots=True)
class Billing:
    """The parts of the ledger that a paid call uses."""

    ledger: Ledger
    holds: Holds
    prices: Prices
    idempotency: IdempotencyStore
    delivery_acks: DeliveryAcks

    @classmethod
    def on(cls, books: Books, clock: Clock) -> "Billing":
        """Return a billing over open books."""
        writer = books.writer
        ledger = Ledger(writer, books.balances, clock)
        return cls(
            ledger,
            Holds(ledger),
            Prices(writer, clock),
            IdempotencyStore(writer, clock),
            DeliveryAcks(writer),
        )
