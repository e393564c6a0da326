"""Logs: standard error, as text or as JSON lines, and the log_buffer that the console reads.

Owns the configuration of `logging`, once in a process. No line ever holds what a client sent:
neither texts nor keys. Nothing is rotated: journald or the shell does.
"""

import json
import logging
import sys

from appliance.observe.log_buffer import LogBuffer

NAMES = ("gigarouter", "granian", "_granian")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """Time, level, message; control characters made visible."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return one line that cannot steer a terminal."""
        text = super().formatMessage(record)
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def configure(log_format: str, *, debug: bool = False) -> LogBuffer:
    """Send our log to standard error, other libraries' warnings too; return what remembers it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    log_buffer = LogBuffer()
    root.handlers[:] = [handler, log_buffer]
    root.setLevel(logging.WARNING)
    for name in NAMES:
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
    # Granian announces itself as experimental and each start and stop, llama.cpp its guesses.
    for name in () if debug else ("granian", "_granian", "gigarouter.llama"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return log_buffer
