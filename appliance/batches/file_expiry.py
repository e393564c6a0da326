"""FileExpiry: files are deleted when their time is over, or their key was revoked.

Owns when. An error is logged, and the next hour tries again.
"""

import asyncio
import logging

from appliance.batches.file_store import FileStore
from appliance.core.errors import ApplianceError

log = logging.getLogger("gigarouter.files")

EVERY_S = 3600.0
PAUSE_S = 0.05
"""Between two removals: calls' charges go between."""


class FileExpiry:
    """Deletes what its key can have no longer."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    async def run(self) -> None:
        """Look every hour until cancelled; at once when the server starts."""
        while True:
            await self.once()
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """Delete all that is to go now."""
        removed = 0
        try:
            while some := await self._store.expire():
                removed += some
                await asyncio.sleep(PAUSE_S)
        except ApplianceError as error:
            log.warning("old files are not deleted yet: %s", error)
        except Exception:
            log.exception("old files are not deleted yet")
        if removed:
            log.info("deleted %d files whose time was over", removed)
