"""Reader: short-lived connections for reads that are too long for the writer's thread.

Owns how such a connection is opened: read-only, at one moment of the database, on the thread that
uses it. It keeps none open: a reader holds the log, which cannot begin again before it.

This is safe beside the one writer. SQLite opens the file for reading only, so that the connection
can neither write nor fold the log nor delete it on closing (all of these need a lock that such a
handle cannot take), and in the log's mode readers and the writer never wait for each other. The
WAL-reset bug needs two connections that write or fold; there is still one.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from appliance.core.errors import StoreFailed

BUSY_SECONDS = 5.0
"""How long to wait for another process that recovers the log."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that sees the database as it is now, until the block ends.

    Raises:
        StoreFailed: it cannot be opened or read.
    """
    try:
        with closing(open_read_only(path)) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise StoreFailed(f"{path} cannot be read: {error}.") from error


def open_read_only(path: Path, *, untouched: bool = False) -> sqlite3.Connection:
    """Open a database for reading.

    With `untouched=True` not even its log is looked at, and nothing is made beside it: for a file
    that may be anybody's, or that nobody writes.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    how = "immutable=1" if untouched else "mode=ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None, timeout=BUSY_SECONDS
    )
    connection.execute("PRAGMA query_only = ON")
    return connection
