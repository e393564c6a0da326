"""Heartbeat: whether the server lives and its engines compute, said to whoever watches over it.

Owns what counts as a sign of life: the event loop turns and the ledger's writer answers; and each
engine ends batches, or a single token of ours if nobody else gives it anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import count

import numpy as np

from appliance.core.errors import ApplianceError
from appliance.scheduler.engine import Engine
from appliance.sequences.sequence import TokenSequence

EVERY_S = 5.0
LOOKS = 12
"""The engines are asked every so many beats."""
KEY = "heartbeat"
"""In whose turn our tokens are computed; the id of no key."""


class Heartbeat:
    """Watches over one server from inside."""

    def __init__(
        self,
        engines: Callable[[], Iterable[Engine]],
        writer: Callable[[], Awaitable[None]],
        *,
        alive: Callable[[], None],
        well: Callable[[], None],
        every_s: float = EVERY_S,
    ) -> None:
        """Prepare.

        `writer` returns when the ledger's thread has answered. `alive` is called at each beat, and
        `well` whenever all engines were seen to compute.
        """
        self._engines = engines
        self._writer = writer
        self._alive = alive
        self._well = well
        self._every_s = every_s
        self._batches: dict[int, int] = {}
        """By engine, how many batches it had ended at the last look."""
        self._token = count()

    async def run(self) -> None:
        """Beat until cancelled."""
        looking: asyncio.Task[None] | None = None
        try:
            for beat in count():
                with suppress(ApplianceError):  # a disk that is full has answered, too
                    await self._writer()
                self._alive()
                if beat % LOOKS == 0 and (looking is None or looking.done()):
                    # Beside the beats: an engine may compute one long call for minutes.
                    looking = asyncio.create_task(self.look())
                await asyncio.sleep(self._every_s)
        finally:
            if looking is not None:
                looking.cancel()

    async def look(self) -> None:
        """Say that all is well once every engine has computed something since the last look."""
        seen: dict[int, int] = {}
        for engine in list(self._engines()):
            batches = engine.counters.batches
            if self._batches.get(engine.number) == batches:
                with suppress(ApplianceError):  # it died: whoever loads it again watches over that
                    await engine.submit([self._probe(engine)], key=KEY).result()
                batches = engine.counters.batches
            seen[engine.number] = batches
        self._batches = seen
        self._well()

    def _probe(self, engine: Engine) -> TokenSequence:
        """Return a sequence of one token, another one each time: equal ones may be remembered."""
        assert engine.model is not None
        token = next(self._token) % engine.model.weights.facts.vocabulary
        return TokenSequence(np.array([token], np.int32), 1, truncated=False)
