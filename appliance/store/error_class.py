"""ErrorClass: what an error in the middle of a transaction says of the disk.

Owns the three cases: it is full, it cannot be trusted any more, or it was a passing thing. An error
of a kind that is not known is the worst.
"""

import sqlite3
from typing import Literal

ErrorClass = Literal["full", "fatal", "passing"]

FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""No room in the file system: for the database or its log, or for the log's index."""
FATAL = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_READONLY", "SQLITE_ERROR")
"""Errors after which nothing that SQLite says of this file can be believed. The last one: it does
not understand a statement of ours, so that the tables are not ours."""


def classify(error: Exception) -> ErrorClass:
    """Return what an error means."""
    if not isinstance(error, sqlite3.Error):
        return "fatal"  # out of memory, a file that is gone, a bug of ours
    name = getattr(error, "sqlite_errorname", None)
    if name is None:
        # Not SQLite's word but its binding's: text that is none, or a statement of ours that is.
        return "fatal" if isinstance(error, sqlite3.OperationalError) else "passing"
    if name in FULL:
        return "full"
    return "fatal" if name.startswith(FATAL) else "passing"
