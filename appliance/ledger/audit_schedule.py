"""AuditSchedule: the whole audit, once an hour, while the server serves.

Owns when it runs and what follows. Books that do not agree are closed: the server stops, as it
would not have started.
"""

import asyncio
import logging

from appliance.core.errors import StoreFailed
from appliance.ledger import audit
from appliance.store.datadir import DataDir
from appliance.store.reader import reading
from appliance.store.writer import Writer

log = logging.getLogger("gigarouter.audit")

EVERY_S = 3600.0


class AuditSchedule:
    """Audits the books of one data directory."""

    def __init__(self, directory: DataDir, writer: Writer) -> None:
        self._directory = directory
        self._writer = writer

    async def run(self) -> None:
        """Audit every hour until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.once()

    async def once(self) -> None:
        """Audit now; close the books if they do not agree."""
        try:
            found = await asyncio.to_thread(self._problems)
        except StoreFailed as error:
            log.error("the books could not be audited: %s", error)  # noqa: TRY400 - it says enough
            return
        for problem in found:
            log.critical("the books do not agree: %s", problem)
        if found:
            self._writer.fail_permanently(f"the books do not agree ({found[0]})")

    def _problems(self) -> list[str]:
        with reading(self._directory.database) as connection:
            [(verdict,)] = connection.execute("PRAGMA integrity_check(1)").fetchall()
            return audit.problems(connection) if verdict == "ok" else [verdict.splitlines()[-1]]
