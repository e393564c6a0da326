"""Counters: how much an engine has computed, and how fast it is."""

from dataclasses import dataclass
from math import ceil

from appliance.scheduler.worker import Batch

NS_PER_S = 1_000_000_000
PARTS = 10
"""Of a batch's room, by which `fills` counts."""


@dataclass(slots=True)
class Counters:
    """What an engine has computed since it was loaded; changed under the engine's lock."""

    batches: int = 0
    sequences: int = 0
    """Sequences that were computed."""
    tokens: int = 0
    """Tokens of these."""
    shared: int = 0
    """Sequences that took the result of an equal one that was waiting or being computed."""
    cached: int = 0
    """Sequences whose row was in the cache."""
    busy_ns: int = 0
    """Time in which workers computed, summed over workers."""
    rate: float = 2_000.0
    """Tokens a second, a moving average; the first guess is a small CPU's."""
    room: int = 1
    """Tokens at which a batch is closed."""
    fill: float = 0.0
    """Share of what a batch may hold that batches held of late, a moving average from 0 to 1."""
    fills: tuple[int, ...] = (0,) * PARTS
    """Batches by the tenth of the room up to which they were filled."""
    filled: float = 0.0
    """The sum of these shares."""

    def add(self, done: Batch, elapsed_ns: int, *, workers: int) -> None:
        """Count a batch that was computed while so many workers were computing."""
        share = min(1.0, done.tokens / self.room)
        self.fill += 0.1 * (share - self.fill)
        part = max(1, ceil(share * PARTS)) - 1
        self.fills = (*self.fills[:part], self.fills[part] + 1, *self.fills[part + 1 :])
        self.filled += share
        self.batches += 1
        self.sequences += len(done.items)
        self.tokens += done.tokens
        self.busy_ns += elapsed_ns
        now = workers * done.tokens * NS_PER_S / max(1, elapsed_ns)
        self.rate += 0.1 * (now - self.rate)
