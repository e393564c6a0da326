"""Log: how long SQLite's write-ahead log is.

Owns the one look into that file from outside SQLite.

SQLite folds the log back into the database by itself, but then it hides a flush that fails in the
middle of that (its own hook drops the error), and after such a flush nothing may be acknowledged.
So the writer folds it, where the error shows, and must know when. The log's file says nothing by
its size: it is written again from its beginning. Reading it is safe: SQLite's locks, which closing
any handle of a file would drop, lie on the database and on the index, never on the log.
"""

import os
from pathlib import Path

HEADER_BYTES = 32
SALTS_IN_HEADER = 16
FRAME_HEADER_BYTES = 24
SALTS_IN_FRAME = 8
SALTS_BYTES = 8
"""sqlite.org/fileformat2.html#the_write_ahead_log: a frame belongs to the log as it is now when it
bears the salts of the header."""


class Log:
    """The write-ahead log beside one database."""

    def __init__(self, database: Path, *, page_bytes: int) -> None:
        self._path = database.with_name(f"{database.name}-wal")
        self._frame_bytes = FRAME_HEADER_BYTES + page_bytes
        self._handle: int | None = None

    def has_frames(self, count: int) -> bool:
        """Say whether so many pages, at least, are in the log."""
        if self._handle is None:
            try:
                self._handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        offset = HEADER_BYTES + (count - 1) * self._frame_bytes + SALTS_IN_FRAME
        salts = os.pread(self._handle, SALTS_BYTES, SALTS_IN_HEADER)
        return bool(salts) and salts == os.pread(self._handle, SALTS_BYTES, offset)

    def is_removed(self) -> bool:
        """Say whether somebody took the file away: what is written to it is nobody's."""
        return self._handle is not None and os.fstat(self._handle).st_nlink == 0

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
