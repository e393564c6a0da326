"""ErrorClass: what an error inside a transaction means for the disk.

Owns the three classes: the disk is full; it has failed and must not be written to any more; or the
error concerns one transaction only. An unknown kind of error counts as a failed disk.
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
"""Errors after which the file's content cannot be relied on. SQLITE_ERROR is one of them: if a
statement of this program cannot be compiled, the tables are not the expected ones."""


def classify(error: BaseException) -> ErrorClass:
    """Return the class of an error."""
    if not isinstance(error, sqlite3.Error):
        return "fatal"  # out of memory, a missing file, a bug
    name = getattr(error, "sqlite_errorname", None)
    if name is None:
        # Raised by the sqlite3 module itself: text that cannot be decoded, or a wrong use of it.
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
        InvalidRequest: a number is too large.
    """
    try:
        yield
    except (OverflowError, sqlite3.IntegrityError) as error:
        if isinstance(error, OverflowError) or "cannot store REAL value" in str(error):
            raise InvalidRequest(TOO_LARGE) from error
        raise
