"""File watch: what was done to the files of loaded models.

A loaded model is computed from memory, so that nothing done to its file changes an answer. But the
next load will meet it, after an unload, a crash or a start: the operator is told before.
"""

import asyncio
import logging

from appliance.scheduler.model_pool import ModelPool
from appliance.scheduler.pool_entry import PoolEntry
from appliance.store.file_state import FileState, change_of

log = logging.getLogger("gigarouter.residency")

EVERY_S = 2.0


class FileWatch:
    """Looks at the files of loaded models, and writes each change into the log once."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._told: dict[FileState, str] = {}
        """What was said of each file that a loaded model came from."""

    def __repr__(self) -> str:
        """Count what was said."""
        return f"<FileWatch [{len(self._told)} changed]>"

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await asyncio.to_thread(self.look, list(self._pool.entries.values()))

    def look(self, entries: list[PoolEntry]) -> None:
        """Write into the log what was done to the files of these models since the last look."""
        told, self._told = self._told, {}
        for entry in entries:
            file, note = _file(entry), file_note(entry)
            if file is None or note is None:
                continue
            if told.get(file) != note:
                log.warning("%s: %s", entry.spec.id, note)
            self._told[file] = note


def file_note(entry: PoolEntry) -> str | None:
    """Return what was done to a loaded model's file since it was read; None: nothing."""
    file = _file(entry)
    change = None if file is None else change_of(entry.spec.path, file)
    return change and f"{change} after it was loaded; what is loaded goes on as it was"


def _file(entry: PoolEntry) -> FileState | None:
    model = entry.engine.model if entry.engine is not None and entry.is_usable else None
    return None if model is None else model.file
