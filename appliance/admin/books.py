"""Books: the operator's backups of the books.

Owns what is shown of a backup.
"""

import asyncio
import re
from pathlib import Path

from appliance.core.clock import Clock, iso
from appliance.core.errors import InvalidRequest
from appliance.ledger.backup import back_up
from appliance.ledger.backup_schedule import BackupSchedule
from appliance.store.datadir import DataDir
from appliance.wire.books import BackupList, BackupOrder, BackupView

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
"""A path would let whoever has the token write where the server may."""


class BooksAdmin:
    """The operator's verbs for the books."""

    def __init__(self, directory: DataDir, schedule: BackupSchedule, clock: Clock) -> None:
        self._directory = directory
        self._schedule = schedule
        self._clock = clock
        self._copying = asyncio.Lock()

    @property
    def failures(self) -> int:
        """Scheduled backups that failed since the server started."""
        return self._schedule.failures

    async def back_up(self, order: BackupOrder) -> BackupView:
        """Write a copy of the books as they are now into `backups/`, and check it.

        Raises:
            InvalidRequest: it is no name of a file, or the name is taken.
            StoreFailed: the copy could not be made, or is not good.
        """
        if FILE_NAME.fullmatch(order.name) is None:
            raise InvalidRequest(
                "name is that of a file in backups/: up to 128 letters, digits, '.', '-' and '_'. "
                "`gigarouter backup FILE` writes it elsewhere.",
                param="name",
            )
        target = self._directory.backups / order.name
        async with self._copying:
            size = await asyncio.to_thread(self._back_up, target, overwrite=order.overwrite)
        return BackupView(path=str(target), bytes=size, created=iso(self._clock.wall_us()) or "")

    def _back_up(self, target: Path, *, overwrite: bool) -> int:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        return back_up(self._directory, target, overwrite=overwrite)

    async def backups(self) -> BackupList:
        """Return the backups that the schedule made."""
        return BackupList(
            every_h=self._schedule.every_h,
            keep=self._schedule.keep,
            last_error=self._schedule.last_error,
            data=[_view(path) for path in self._schedule.files()],
        )


def _view(path: Path) -> BackupView:
    found = path.stat()
    return BackupView(
        path=str(path), bytes=found.st_size, created=iso(found.st_mtime_ns // 1000) or ""
    )
