"""Tally: how much was asked of models, in the figures that panels, reports and series share.

Owns what each figure means. Nothing counts a request twice: it is a call, refused, or free.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

EVERY_MODEL = ""
"""In the place of a model's id: all requests, also those that named no model that is known."""

MINUTES_PER_HOUR = 60
MINUTES_KEPT = 61
"""Minutes of which a history is kept: an hour, and the one that runs."""
HOURS_KEPT = 721
"""Hours of which one is kept: thirty days, and the one that runs."""
MODELS_MAX = 50
"""Models with a history of their own; the others share one."""


@dataclass(slots=True)
class Tally:
    """What happened in some span of time."""

    calls: int = 0
    """Requests for embeddings or a ranking that were answered and charged; each line of a batch is
    one."""
    tokens: int = 0
    """Of these calls, `usage.total_tokens` of their answers: rerank's are included."""
    documents: int = 0
    """Of these calls, the documents that rerank was charged for."""
    refused: int = 0
    """Requests that ended with an error, or whose client hung up; nothing was charged."""
    free: int = 0
    """Requests answered for nothing: about tokens, dry runs, and repetitions of a charged call."""

    def join(self, other: "Tally") -> None:
        """Add what another one has counted."""
        self.calls += other.calls
        self.tokens += other.tokens
        self.documents += other.documents
        self.refused += other.refused
        self.free += other.free

    def raise_to(self, other: "Tally") -> None:
        """Take each figure of another one that is higher."""
        self.calls = max(self.calls, other.calls)
        self.tokens = max(self.tokens, other.tokens)
        self.documents = max(self.documents, other.documents)
        self.refused = max(self.refused, other.refused)
        self.free = max(self.free, other.free)

    def values(self) -> tuple[int, ...]:
        """Return the figures in the order of `FIGURES`."""
        return astuple(self)


FIGURES: tuple[str, ...] = tuple(field.name for field in fields(Tally))


@dataclass(frozen=True, slots=True)
class MinuteRow:
    """What one model, or `EVERY_MODEL`, did in one minute, or in a part of it."""

    at: int
    """Minutes since the Unix epoch, UTC."""
    model: str
    tally: Tally


@dataclass(frozen=True, slots=True)
class HourRow:
    """The same of one hour, and the most that any of its minutes had of each figure."""

    at: int
    """Hours since the Unix epoch, UTC."""
    model: str
    tally: Tally
    highest: Tally


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier processes have counted, oldest first."""

    minutes: Sequence[MinuteRow] = ()
    hours: Sequence[HourRow] = ()
