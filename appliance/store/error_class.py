"""ErrorClass: what an error in the middle of a transaction says of the disk.

Owns the three cases: it is full, it cannot be trusted any more, or it was a passing thing. An error
of a kind that is not known is the worst.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from appliance.core.errors import InvalidRequest

ErrorClass = Literal["full", "fatal", "passing"]

TOO_LARGE = "a number of this request is larger than the books can hold"

FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""No room in the file system: for the database or its log, or for the log's index."""
FATAL = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_READONLY", "SQLITE_ERROR")
"""Errors after which nothing that SQLite says of this file can be believed. The last one: it does
not understand a statement of ours, so that the tables are not ours."""


def classify(error: BaseException) -> ErrorClass:
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


@contextmanager
def numbers_of_64_bits() -> Iterator[None]:
    """Refuse a request whose numbers, or their sums, need more than 64 bits, in this block.

    Python refuses such a number when it is bound; SQLite makes a float of a sum that is too large,
    and a STRICT table refuses that.

    Raises:
        InvalidRequest: as said.
    """
    try:
        yield
    except (OverflowError, sqlite3.IntegrityError) as error:
        if isinstance(error, OverflowError) or "cannot store REAL value" in str(error):
            raise InvalidRequest(TOO_LARGE) from error
        raise
