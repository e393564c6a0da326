"""BackupSchedule: the backups that a server makes regularly.

Owns when one is due, the names in `backups/`, and which of them are removed. A failed backup is
logged and shown, and tried again when the next one is due.
"""

import asyncio
import logging
import re
from contextlib import suppress
from pathlib import Path

from appliance.core.clock import Clock, stamp, stamped_us
from appliance.core.errors import ApplianceError
from appliance.ledger.backup import back_up
from appliance.settings import BackupSettings
from appliance.store.datadir import HANDED_OVER, DataDir

log = logging.getLogger("gigarouter.backup")

START_PAUSE_S = 60.0
"""Before the first backup: a server that has just started loads its models."""
LEFT_US = 24 * 3600 * 1_000_000
"""How old a copy is that no command waits for any more, in microseconds."""
NAME = re.compile(r"gigarouter-\d{8}T\d{6}Z\.db")
"""The names of scheduled backups; other files in the directory are never removed."""


class BackupSchedule:
    """The backups of one data directory; `run` makes them."""

    def __init__(self, directory: DataDir, settings: BackupSettings, clock: Clock) -> None:
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self.last_error: str | None = None
        """Why the last one failed; None: it succeeded, or there was none."""
        self.failures = 0
        """Since the server started."""

    def __repr__(self) -> str:
        """Show the interval and the last result."""
        return f"<BackupSchedule [every {self._settings.every_h} h | {self.last_error or 'ok'}]>"

    @property
    def every_h(self) -> int:
        """Hours between two backups; 0: none is made."""
        return self._settings.every_h

    @property
    def keep(self) -> int:
        """How many backups are kept."""
        return self._settings.keep

    def files(self) -> list[Path]:
        """Return the existing backups, oldest first."""
        folder = self._directory.backups
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))

    def due_in_s(self) -> float:
        """Return the seconds until the next backup."""
        interval_s = self.every_h * 3600.0
        files = self.files()
        if not files:
            return START_PAUSE_S
        made_us = files[-1].stat().st_mtime_ns // 1000
        with suppress(ValueError):  # digits that are no date
            made_us = stamped_us(files[-1].name.removeprefix("gigarouter-").removesuffix(".db"))
        age_s = (self._clock.wall_us() - made_us) / 1e6
        # Bounded on both sides: the clock may have been set since.
        return min(interval_s, max(START_PAUSE_S, interval_s - age_s))

    async def run(self) -> None:
        """Make backups until cancelled."""
        if not self.every_h:
            return
        try:
            wait_s = self.due_in_s()
        except OSError as error:
            log.error("the backups cannot be looked at: %s", error)  # noqa: TRY400 - it says enough
            wait_s = START_PAUSE_S
        while True:
            await asyncio.sleep(wait_s)
            await self.once()
            wait_s = self.every_h * 3600.0

    async def once(self) -> None:
        """Make one backup now and remove those that are too old."""
        try:
            await asyncio.to_thread(self._make)
        except (ApplianceError, OSError) as error:
            self.failures += 1
            self.last_error = str(error)
            log.error("the scheduled backup failed: %s", error)  # noqa: TRY400 - it says enough
        except Exception as error:
            self.failures += 1
            self.last_error = repr(error)
            log.exception("the scheduled backup failed")
        else:
            self.last_error = None

    def _make(self) -> None:
        folder = self._directory.backups
        folder.mkdir(mode=0o700, exist_ok=True)
        back_up(self._directory, folder / f"gigarouter-{stamp(self._clock.wall_us())}.db")
        for part in folder.glob(".gigarouter-*.part*"):
            part.unlink()  # of a backup that a crash interrupted
        for left in folder.glob(f"{HANDED_OVER}*"):
            if self._clock.wall_us() - left.stat().st_mtime_ns // 1000 > LEFT_US:
                left.unlink()  # of a command that was killed
        for old in self.files()[: -self.keep]:
            old.unlink()
