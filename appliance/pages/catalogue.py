"""Catalogue: the models as the first page lists them, and which of them a reader asked to see."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from appliance.pricing.tariff import UNIT_OF
from appliance.wire.models import ModelView

TASKS = tuple(UNIT_OF)
WORDS_MAX = 100
"""Characters of a search that count."""


class State(StrEnum):
    """Whether a model can be called, in the order in which models are listed."""

    LOADED = "loaded"
    COLD = "cold"
    ABSENT = "not here"
    UNUSABLE = "not usable"


MEANING = {
    State.LOADED: "in memory: answers at once",
    State.COLD: "on this machine: the first call loads it",
    State.ABSENT: "not on this machine: the operator can fetch it",
    State.UNUSABLE: "its file cannot be used",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader asked for; the default is everything."""

    words: str = ""
    task: str = ""
    here: bool = False
    """Only what can be called now."""

    @classmethod
    def of(cls, words: str | None, task: str | None, here: str | None) -> "Wish":
        """Return the wish of a query string; what makes no sense there asks for nothing."""
        known = task if task in TASKS else ""
        return cls((words or "").strip()[:WORDS_MAX], known, here == "1")


@dataclass(frozen=True, slots=True)
class Row:
    """One model."""

    model: ModelView
    state: State

    @property
    def meaning(self) -> str:
        """What its state means for a caller."""
        if self.state is State.UNUSABLE:
            return self.model.reason or MEANING[self.state]
        return MEANING[self.state]


def state_of(model: ModelView) -> State:
    """Return whether a model can be called."""
    if model.loaded:
        return State.LOADED
    if model.available:
        return State.COLD
    return State.ABSENT if model.missing else State.UNUSABLE


def rows(models: Iterable[ModelView], wish: Wish) -> list[Row]:
    """Return the models that were asked for, those that answer soonest first."""
    order = list(State)
    wanted = [Row(model, state_of(model)) for model in models]
    wanted = [row for row in wanted if _is_wanted(row, wish)]
    return sorted(
        wanted,
        key=lambda row: (order.index(row.state), row.model.task, row.model.id),
    )


def first_of(models: Sequence[ModelView], task: str, preferred: str | None) -> str | None:
    """Return the id of the model for an example: the preferred one, else one that can be called.

    None: no model can do the task here.
    """
    if preferred is not None:
        return preferred
    here = rows(models, Wish(task=task, here=True))
    return here[0].model.id if here else None


def _is_wanted(row: Row, wish: Wish) -> bool:
    model = row.model
    text = " ".join((model.id, *model.aliases, model.description, model.license)).casefold()
    return (
        wish.task in ("", model.task)
        and (not wish.here or model.available)
        and all(word in text for word in wish.words.casefold().split())
    )
