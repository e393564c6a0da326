"""Selection: which rows of a table are shown, and in which order. Pure.

A person's text is looked for in what the row says, whatever its case.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from appliance.wire.engines import EngineList
from appliance.wire.keys import KeyView
from appliance.wire.models import ModelView
from tui.fit import FITS, fit_of

TASKS = ("", "embeddings", "rerank")
"""Of models that are shown; empty: all."""

ENDLESS = Decimal("Infinity")
SORTS: dict[str, Callable[[KeyView], Any]] = {
    "age": lambda key: key.created,
    "name": lambda key: key.name.casefold(),
    "credit left": lambda key: ENDLESS if key.credit is None else key.credit,
    "spent today": lambda key: key.spent_today,
    "last used": lambda key: key.last_used or "",
    "expiry": lambda key: key.expires or "9",
}
"""What keys are sorted by."""
FROM_THE_TOP = ("credit left", "spent today", "last used")
"""Of these, those that have the most, or the latest, first."""


def keys_shown(
    keys: Iterable[KeyView], *, text: str, order: str, with_ended: bool
) -> list[KeyView]:
    """Return the keys that are wanted, in an order of `SORTS`."""
    found = [
        key
        for key in keys
        if (with_ended or key.revoked is None)
        and _has(text, key.name, key.id, key.hint, *(key.models or ()))
    ]
    return sorted(found, key=SORTS[order], reverse=order in FROM_THE_TOP)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which models are shown."""

    task: str = ""
    """One of `TASKS`."""
    fits: bool = False
    """Only what has room, and is computed quickly."""
    here: bool = False
    """Only what is on this machine."""

    def said(self) -> list[str]:
        """Return what is wanted in words, with the key that changes it."""
        return [
            f"k task: {self.task or 'any'}",
            f"f {'what fits' if self.fits else 'fit: any'}",
            f"h {'what is here' if self.here else 'here or not'}",
        ]


def models_shown(
    models: Iterable[ModelView], wanted: Wanted, engines: EngineList, *, text: str
) -> list[ModelView]:
    """Return the models that are wanted, in the order of the catalogue."""
    return [
        model
        for model in models
        if wanted.task in ("", model.task)
        and (not wanted.fits or fit_of(model, engines) == FITS)
        and (not wanted.here or not model.missing)
        and _has(text, model.id, model.description, model.license, *model.aliases)
    ]


def _has(text: str, *fields: str) -> bool:
    return all(
        any(word in field.casefold() for field in fields) for word in text.casefold().split()
    )
