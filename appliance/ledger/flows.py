"""Flows: what was written to the books since this process began, for its metrics.

Owns exact sums: those of the transfers that were committed, refunds among them, whoever caused
them. Names beyond a bound share one; nothing here is read by what decides about money.
"""

from collections.abc import Iterable
from typing import TypeVar

from appliance.core.flow import Flow, FlowReading

NAMES_MAX = 1000
"""Models and keys with sums of their own; those that come later share `OTHER`."""
OTHER = "other"

K = TypeVar("K")

Row = tuple[str, str, str, str | None, str | None, int | None, int]
"""Of a transfer: debit, credit, kind, tier, model, units, amount."""


class Flows:
    """Sums transfers; whoever owns it guards it."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._charges: dict[tuple[str, str], Flow] = {}
        self._keys: dict[str, Flow] = {}
        self._others: dict[str, Flow] = {}
        self._models: set[str] = set()

    def __repr__(self) -> str:
        """Count what has sums."""
        return f"<Flows [{len(self._models)} models | {len(self._keys)} keys]>"

    def add(self, rows: Iterable[Row]) -> None:
        """Add transfers that were committed."""
        for debit, _, kind, tier, model, units, amount in rows:
            if kind != "charge":
                _add(self._others, kind, 0, amount)
                continue
            _add(self._charges, (self._model(model or ""), tier or ""), units or 0, amount)
            is_known = debit in self._keys or len(self._keys) < NAMES_MAX
            _add(self._keys, debit if is_known else OTHER, units or 0, amount)

    def read(self, left: int) -> FlowReading:
        """Return a copy of the sums, beside what is left to spend."""
        return FlowReading(dict(self._charges), dict(self._keys), dict(self._others), left)

    def _model(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= NAMES_MAX:
                return OTHER
            self._models.add(model)
        return model


def _add(sums: dict[K, Flow], name: K, units: int, amount: int) -> None:
    known = sums.get(name, Flow())
    sums[name] = Flow(known.transfers + 1, known.units + units, known.amount + amount)
