"""Checkpointer: copies the write-ahead log into the database before it is long.

Owns when that is due. SQLite can do it by itself, but its own hook discards the error of a flush
that fails meanwhile, and after such a flush no commit may be acknowledged. So the automatic
checkpoint is off (`wal_autocheckpoint = 0`), and the writer runs one here, where the error shows.

A checkpoint says how many pages the log had. Between two of them nothing does: the log's file is
written again from its beginning and keeps its size. So the pages are estimated from the rows that
were changed, at the rate of pages for each row that the last checkpoint found.
"""

import sqlite3

FRAMES_MAX = 1_000
"""Pages that the log may have: 4 MiB."""
FRAMES_PER_CHANGE_MIN = 0.25
"""The least rate that is believed: commits of many rows share pages, and the next may not."""
MARGIN = 2
"""How far an estimate may be too low before the log is longer than `FRAMES_MAX`."""


class Checkpointer:
    """Runs the checkpoints of one connection, the only one that writes; for its thread alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._changes = connection.total_changes
        """Rows changed before the last checkpoint."""
        self._frames_kept = 0
        """Pages that the last checkpoint left in the log, because a reader needs them there."""
        self._frames_per_change = float(FRAMES_MAX)
        """At first so many that the first change is followed by a checkpoint, which counts."""

    def __repr__(self) -> str:
        """Show the rate that was found last."""
        return f"<Checkpointer [{self._frames_per_change:.2f} pages for each changed row]>"

    def run_if_due(self, connection: sqlite3.Connection) -> bool:
        """Copy the log into the database if it may be long; return whether it was copied.

        Raises:
            sqlite3.Error: the log or the database could not be written or flushed.
        """
        changes = connection.total_changes - self._changes
        if changes * self._frames_per_change * MARGIN < FRAMES_MAX:
            return False
        # It waits for no reader: what one still needs stays in the log until the next time.
        _, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._changes += changes
        added = max(0, frames - self._frames_kept)
        # The rate may rise at once and falls slowly: one that is too high costs a checkpoint, one
        # that is too low a long log.
        self._frames_per_change = max(
            added / max(1, changes), self._frames_per_change / 2, FRAMES_PER_CHANGE_MIN
        )
        self._frames_kept = frames if copied < frames else 0
        return True
