"""AuditSchedule: the whole audit, once an hour, while the server runs.

Owns when it runs and what follows. Books that do not agree are closed and the server stops, because
it would not start with such books either.
"""

import asyncio
import logging

from appliance.core.errors import StoreFailed
from appliance.ledger import audit
from appliance.ledger.books import Books
from appliance.store.datadir import DataDir
from appliance.store.reader import reading

log = logging.getLogger("gigarouter.audit")

EVERY_S = 3600.0


class AuditSchedule:
    """Audits the books of one data directory."""

    def __init__(self, directory: DataDir, books: Books) -> None:
        self._directory = directory
        self._books = books

    async def run(self) -> None:
        """Audit every hour until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.once()

    async def once(self) -> None:
        """Audit now; close the books if they do not agree.

        An audit that cannot be done is logged and shown by `gigarouter doctor`; the next one is
        done all the same.
        """
        record = self._books.audited
        try:
            found = await asyncio.to_thread(self._problems)
        except StoreFailed as error:
            record.error = error.message
            log.error("the books could not be audited: %s", error)  # noqa: TRY400 - it says enough
            return
        except Exception as error:
            record.error = repr(error)
            log.exception("the books could not be audited")
            return
        record.error = None
        for problem in found:
            log.critical("the books do not agree: %s", problem)
        if found:
            record.problem = found[0]
            self._books.writer.fail_permanently(f"the books do not agree ({found[0]})")
        else:
            record.whole_us = self._books.clock.wall_us()

    def _problems(self) -> list[str]:
        with reading(self._directory.database) as connection:
            [(verdict,)] = connection.execute("PRAGMA integrity_check(1)").fetchall()
            return audit.problems(connection) if verdict == "ok" else [verdict.splitlines()[-1]]
