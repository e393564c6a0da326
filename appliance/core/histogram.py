"""Histogram: how many values there were up to each of some bounds."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram at one moment."""

    bounds: tuple[float, ...]
    """Upper bounds, which are in their bucket; one more bucket has what is above the last."""
    counts: tuple[int, ...]
    """Values in each bucket, one more than bounds."""
    total: float
    """The sum of all values."""

    def __post_init__(self) -> None:
        """Check the shape."""
        assert len(self.counts) == len(self.bounds) + 1


class Histogram:
    """Counts values; one thread adds, any may read."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin at zero; `bounds` ascend."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def __repr__(self) -> str:
        """Count the values."""
        return f"<Histogram [{sum(self._counts)} values]>"

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> Buckets:
        """Return what was counted up to now."""
        return Buckets(self._bounds, tuple(self._counts), self._total)
