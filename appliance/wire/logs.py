"""Logs: lines of the server's log, as the operator's API returns them."""

import msgspec


class LogLine(msgspec.Struct, frozen=True):
    """One record."""

    number: int
    """Counted from the server's start, from 1."""
    at: str
    level: str
    """`debug`, `info`, `warning`, `error` or `critical`."""
    logger: str
    message: str


class LogView(msgspec.Struct, frozen=True):
    """Lines, oldest first."""

    data: list[LogLine]
    cursor: str
    """The position after them, `RUN-NUMBER`, to ask for later lines. Each start is another run."""
