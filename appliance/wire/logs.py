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
    """Where they end, `RUN-NUMBER`: ask with it for what comes after. Each start is another run."""
