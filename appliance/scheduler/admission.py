"""Admission: which calls an engine takes in, by how long they would take at its measured speed.

What is admitted and then not answered in time was computed for nothing: an engine that admits
everything answers nobody once callers give up ("Site Reliability Engineering", O'Reilly 2016,
chapter 21). So a call is taken in if all that was admitted can still end within its caller's
patience; and in any case if it is light, so that fair turns end it in a quarter of that whatever
others have waiting, or if it is nearly alone, however long it takes by itself.
"""

from math import ceil

from appliance.core.clock import Clock
from appliance.core.errors import QueueFull
from appliance.scheduler.queue import Backlog

SHARE_OF_PATIENCE = 0.7
"""How much of their patience callers spend in the queue: tokenizing, other engines and a speed that
changes take some."""
LIGHT = 0.25
"""A call that ends in this share of its caller's patience is light."""
PER_KEY = 0.5
"""One key may have so much of what is admitted."""
ALONE = 2.0
"""A call may take so many times as long as it would by itself."""
RETRY_S_MAX = 60
NS_PER_S = 1_000_000_000


class Admission:
    """Admits calls to one engine; called under its lock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._promised_s = 0.0
        """Until when those that were sent away were told to come back."""

    def __repr__(self) -> str:
        """Say when the last one is expected back."""
        return f"<Admission [{max(0.0, self._promised_s - self._now_s()):.1f} s promised]>"

    def require(
        self, backlog: Backlog, computing: int, tokens: int, *, rate: float, patience_s: float
    ) -> None:
        """Refuse a call of so many tokens that would not end in time.

        `computing` are tokens in batches; `rate` is what the engine computes, in tokens a second.

        Raises:
            QueueFull: as said. Each is told another time at which there will be room.
        """
        speed = rate * backlog.share
        alone_s = tokens / speed
        limit_s = max(patience_s * SHARE_OF_PATIENCE, alone_s * ALONE)
        fair_s = (backlog.before + computing + tokens) / speed
        whole_s = (backlog.whole + computing + tokens) / speed
        own_s = (backlog.own + tokens) / speed
        is_fair = not backlog.own or own_s <= limit_s * PER_KEY
        if fair_s <= patience_s * LIGHT or (whole_s <= limit_s and is_fair):
            return
        now_s = self._now_s()
        # One after the other: of those that come back together only the first would find room.
        fits_s = now_s + max(whole_s - limit_s, own_s - limit_s * PER_KEY if backlog.own else 0.0)
        next_s = self._promised_s + alone_s if self._promised_s > now_s else 0.0
        self._promised_s = min(max(fits_s, next_s), now_s + RETRY_S_MAX)
        retry_s = max(1, min(RETRY_S_MAX, ceil(self._promised_s - now_s)))
        raise QueueFull(retry_after_s=retry_s)

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / NS_PER_S
