"""Logs: standard error, as text or as JSON lines, and the buffer that the console reads.

Owns the configuration of `logging`, once in a process. No line holds a text or a key that a client
sent. The file that a client gives a server it starts is bounded here; journald or the shell bounds
any other.
"""

import json
import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from appliance.core.redaction import redacted
from appliance.core.text import visible, visible_lines
from appliance.observe.access_log import NAME as ACCESS
from appliance.observe.log_buffer import LogBuffer
from appliance.store.bounded_file import shift_if_long

NAMES = ("gigarouter", "granian", "_granian")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; its texts are visible, so that printing them is safe too.

    `fields` of a record are the object's own: of none but words and numbers of ours.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": visible(redacted(record.getMessage())),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = visible_lines(redacted(self.formatException(record.exc_info)))
        return json.dumps(line, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """Time, level and message in one line, and the lines of a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, which cannot steer a terminal."""
        at = self.formatTime(record, "%H:%M:%S")
        line = f"{at} {record.levelname:7} {visible(redacted(record.getMessage()))}"
        if record.exc_info:
            # Not the record's own `exc_text`: another handler may have written it.
            line += "\n" + visible_lines(redacted(self.formatException(record.exc_info)))
        return line


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to standard error, and keeps it short where that is a file of ours."""

    def __init__(self, own_file: Path | None) -> None:
        super().__init__(sys.stderr)
        self._own_file = own_file

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; `logging` holds this handler's lock, so that no line is lost."""
        super().emit(record)
        if self._own_file is not None:
            with suppress(OSError, ValueError):  # a disk that is full: the line was written
                shift_if_long(self.stream.fileno(), self._own_file)


def configure(log_format: str, *, debug: bool = False, own_file: Path | None = None) -> LogBuffer:
    """Send our log and other libraries' warnings to standard error and to the returned buffer.

    `own_file`: if standard error is this file, it is kept short.
    """
    handler = StandardError(own_file)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    log_buffer = LogBuffer()
    # A busy server's calls would leave no room for anything else in the console.
    log_buffer.addFilter(lambda record: record.name != ACCESS)
    root.handlers[:] = [handler, log_buffer]
    root.setLevel(logging.WARNING)
    for name in NAMES:
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
    # Granian logs each start and stop, and llama.cpp what it guesses about a file.
    for name in () if debug else ("granian", "_granian", "gigarouter.llama"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return log_buffer
