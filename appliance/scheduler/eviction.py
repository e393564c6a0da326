"""Eviction: which loaded models are freed to make room for another.

The least recently used ones that may go; a pure choice over plain numbers.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Resident(Generic[K]):
    """A model in memory."""

    key: K
    bytes: int
    used_ns: int
    """When it was called last."""
    may_go: bool
    """False: it is being loaded or called, is pinned, or has only just come."""


def choose_evictions(residents: Sequence[Resident[K]], *, need: int) -> list[K] | None:
    """Return which models to free, those first that were not called for longest, for `need` bytes.

    None: however many went, it would not be enough.
    """
    chosen: list[Resident[K]] = []
    for resident in sorted(residents, key=lambda resident: resident.used_ns):
        if need <= 0:
            break
        if resident.may_go:
            chosen.append(resident)
            need -= resident.bytes
    if need > 0:
        return None
    # The last one may have made some of the first unnecessary.
    spare = -need
    kept = []
    for resident in chosen:
        if resident.bytes <= spare:
            spare -= resident.bytes
        else:
            kept.append(resident.key)
    return kept
