"""Flow: sums of transfers, from the books to those who watch them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flow:
    """Transfers of one kind."""

    transfers: int = 0
    units: int = 0
    """Tokens or documents that were charged."""
    amount: int = 0
    """Picocredits."""


@dataclass(frozen=True, slots=True)
class FlowReading:
    """The sums at one moment, all of the same commit."""

    charges: dict[tuple[str, str], Flow]
    """By model and tier."""
    keys: dict[str, Flow]
    """The charges by key."""
    others: dict[str, Flow]
    """Grants and refunds, by kind."""
    left: int
    """Picocredits that prepaid keys have and no call in flight reserves."""
