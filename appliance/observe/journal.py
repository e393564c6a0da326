"""Journal: the last lines of the log, kept in memory for whoever looks from elsewhere.

Owns the lines and their numbers. Bounded: so many lines of so many characters. Deliberately writes
nothing anywhere: `logs.py` does, to standard error.
"""

import logging
from collections import deque

from appliance.core.clock import iso
from appliance.wire.logs import LogLine, LogView

LINES_KEPT = 1000
LINE_CHARS_MAX = 2000
MICROSECONDS = 1_000_000


class Journal(logging.Handler):
    """Remembers what the program said; any thread may write and read."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[LogLine] = deque(maxlen=LINES_KEPT)
        self._last = 0

    def __repr__(self) -> str:
        """Say how much is remembered."""
        return f"<Journal [{len(self._lines)} lines]>"

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; `logging` holds this handler's lock."""
        self._last += 1
        message = record.getMessage()
        if record.exc_info:
            message += f"\n{logging.Formatter().formatException(record.exc_info)}"
        self._lines.append(
            LogLine(
                number=self._last,
                at=iso(int(record.created * MICROSECONDS)) or "",
                level=record.levelname.lower(),
                logger=record.name,
                message=message[:LINE_CHARS_MAX],
            )
        )

    def after(self, number: int) -> LogView:
        """Return the lines that came after a number, as far as they are kept.

        A number that is not reached yet is of an earlier run: then everything is new.
        """
        self.acquire()
        try:
            number = number if number <= self._last else 0
            lines = [line for line in self._lines if line.number > number]
            return LogView(data=lines, last=self._last)
        finally:
            self.release()
