"""LogBuffer: the last lines of the log, kept in memory for the operator's API.

Owns the lines and their numbers. Bounded in lines, and in characters of each. Writing them to
standard error is the work of `logs.py`.
"""

import logging
import secrets
from collections import deque

from appliance.core.clock import iso
from appliance.core.redaction import redacted
from appliance.core.text import visible, visible_lines
from appliance.wire.logs import LogLine, LogView

LINES_KEPT = 1000
LINE_CHARS_MAX = 2000
DIGITS_MAX = 18
MICROSECONDS = 1_000_000


class LogBuffer(logging.Handler):
    """Keeps the last records; any thread may write and read."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[LogLine] = deque(maxlen=LINES_KEPT)
        self._last = 0
        self._run = secrets.token_hex(4)
        """Distinguishes the numbers of this run from those of another."""

    def __repr__(self) -> str:
        """Return the number of lines that are kept."""
        return f"<LogBuffer [{len(self._lines)} lines]>"

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; `logging` holds this handler's lock."""
        try:
            self._keep(record)
        except Exception:  # noqa: BLE001 - a failure to log is no failure of the caller, as with any handler
            self.handleError(record)

    def _keep(self, record: logging.LogRecord) -> None:
        message = visible(redacted(record.getMessage()), chars_max=LINE_CHARS_MAX)
        if record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
            message += "\n" + visible_lines(redacted(trace))
        self._last += 1
        self._lines.append(
            LogLine(
                number=self._last,
                at=iso(int(record.created * MICROSECONDS)) or "",
                level=record.levelname.lower(),
                logger=record.name,
                message=message[:LINE_CHARS_MAX],
            )
        )

    def after(self, cursor: str) -> LogView:
        """Return the lines that came after a view's cursor, as far as they are kept.

        Any other text, and the cursor of an earlier run, return every line that is kept.
        """
        run, _, text = cursor.partition("-")
        is_ours = run == self._run and text.isascii() and text.isdigit() and len(text) < DIGITS_MAX
        number = int(text) if is_ours else 0
        self.acquire()
        try:
            lines = [line for line in self._lines if line.number > number]
            return LogView(data=lines, cursor=f"{self._run}-{self._last}")
        finally:
            self.release()

    def cursor(self, line: LogLine) -> str:
        """Return the cursor for the lines after this one."""
        return f"{self._run}-{line.number}"
