"""Books: the operator's backups of the books.

Owns what is shown of a backup.
"""

import asyncio
from pathlib import Path

from appliance.core.clock import Clock, iso
from appliance.core.errors import InvalidRequest
from appliance.ledger.backup import back_up
from appliance.ledger.backup_schedule import BackupSchedule
from appliance.store.datadir import DataDir
from appliance.wire.books import BackupList, BackupOrder, BackupView


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

        Whoever has the operator's token may not have this user's files: no other place is written.

        Raises:
            InvalidRequest: the path cannot be used; `param` is `path`.
            StoreFailed: the copy could not be made, or is not good.
        """
        target = self._directory.backups / order.path  # an absolute one stays as it is
        if target.parent != self._directory.backups or target.name in ("", ".", ".."):
            raise InvalidRequest(
                f"a server writes backups into {self._directory.backups} alone: send a name; "
                "`gigarouter backup FILE` writes anywhere",
                param="path",
            )
        self._directory.backups.mkdir(mode=0o700, exist_ok=True)
        async with self._copying:
            size = await asyncio.to_thread(
                back_up, self._directory, target, overwrite=order.overwrite
            )
        return BackupView(path=str(target), bytes=size, created=iso(self._clock.wall_us()) or "")

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
