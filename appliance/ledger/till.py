"""Till: everything that a paid call needs of the books, in one hand.

Owns nothing but the grouping.
"""

from dataclasses import dataclass

from appliance.core.clock import Clock
from appliance.ledger.deliveries import Deliveries
from appliance.ledger.holds import Holds
from appliance.ledger.ledger import Ledger
from appliance.ledger.prices import Prices
from appliance.ledger.repeats import Repeats
from appliance.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Till:
    """The books as a call meets them."""

    ledger: Ledger
    holds: Holds
    prices: Prices
    repeats: Repeats
    deliveries: Deliveries

    @classmethod
    def on(cls, writer: Writer, clock: Clock) -> "Till":
        """Return a till over open books."""
        ledger = Ledger(writer, clock)
        return cls(
            ledger, Holds(ledger), Prices(writer, clock), Repeats(writer, clock), Deliveries(writer)
        )
