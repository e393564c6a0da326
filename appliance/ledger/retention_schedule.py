"""RetentionSchedule: old calls' rows are removed, some at a time, while the server runs.

Owns when. An error is logged, and the next hour tries again.
"""

import asyncio
import logging

from appliance.core.clock import MICROSECONDS_PER_DAY, utc_day
from appliance.core.errors import ApplianceError
from appliance.ledger import retention
from appliance.ledger.books import Books

log = logging.getLogger("gigarouter.retention")

EVERY_S = 3600.0
PAUSE_S = 0.05
"""Between two removals: calls' charges go between."""


class RetentionSchedule:
    """Removes what is older than an operator wants to keep."""

    def __init__(self, books: Books, keep_days: int) -> None:
        self._books = books
        self._keep_days = keep_days

    async def run(self) -> None:
        """Look every hour until cancelled; at once when the server starts."""
        while self._keep_days:
            await self.once()
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """Remove all that is old enough now."""
        now_us = self._books.clock.wall_us()
        # Whole days: their sums are complete, and stay.
        before_us = (utc_day(now_us) - self._keep_days) * MICROSECONDS_PER_DAY
        removed = 0
        try:
            while some := await self._books.writer.run(
                lambda connection: retention.remove(connection, before_us, now_us),
                durable=False,
                essential=False,
            ):
                removed += some
                await asyncio.sleep(PAUSE_S)
        except ApplianceError as error:
            log.warning("old calls are not removed yet: %s", error)
        except Exception:
            log.exception("old calls are not removed yet")
        if removed:
            log.info("removed the rows of %d transfers; their sums stay", removed)
