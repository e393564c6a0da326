"""HistoryKeeper: writes the minutes that are over into the store, some rows at a time.

Owns when. A call's charge never waits for more than `ROWS_MAX` rows. What cannot be written waits
for the next time: the server goes on, and says it once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from appliance.core.errors import ApplianceError
from appliance.core.tally import MinuteRow
from appliance.observe.history import History

log = logging.getLogger("gigarouter.history")

EVERY_S = 20.0
PAUSE_S = 0.05
ROWS_MAX = 50
ROUNDS_MAX = 400
LAST_S = 2.0
"""How long a process that ends waits until its last minute is written."""


class Store(Protocol):
    """Where rows are kept."""

    async def add(self, rows: Sequence[MinuteRow]) -> None:
        """Add to the rows of some minutes and of their hours, all of them or none."""

    async def trim(self, now: int | None) -> int:
        """Remove rows that are not kept, some at a time; return how many were removed."""


class HistoryKeeper:
    """Keeps one history in the store."""

    def __init__(self, history: History, store: Store) -> None:
        self._history = history
        self._store = store
        self._fails = False

    async def run(self) -> None:
        """Write what is over until cancelled; then the minute that runs, too."""
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                await self.once()
        finally:
            self._history.close_minute()
            try:
                async with asyncio.timeout(LAST_S):
                    await self.once()
            except TimeoutError:
                log.warning("the last minute of the history is not written: the disk is slow")

    async def once(self) -> None:
        """Write all minutes that are over, and remove rows that are not kept."""
        try:
            await _again(self._some)
            await _again(lambda: self._store.trim(self._history.trusted_minute()))
        except ApplianceError as error:
            self._say(str(error))
        except Exception:
            log.exception("the history of calls is not written")
        else:
            self._fails = False

    async def _some(self) -> int:
        """Write some rows; return how many."""
        rows = self._history.take(ROWS_MAX)
        if rows:
            try:
                await self._store.add(rows)
            except ApplianceError:
                self._history.give_back(rows)
                raise
        return len(rows)

    def _say(self, why: str) -> None:
        """Say it in the log, once until it works again."""
        if not self._fails:
            log.warning("the history of calls is not written for now: %s", why)
        self._fails = True


async def _again(work: Callable[[], Awaitable[int]]) -> None:
    """Do something until nothing is left, or the next time; calls' charges go between."""
    for _ in range(ROUNDS_MAX):
        if not await work():
            return
        await asyncio.sleep(PAUSE_S)
