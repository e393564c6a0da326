"""Reader: short-lived connections for everything that is only read.

Owns how such a connection is opened: read-only, with one snapshot of the database, on the thread
that uses it. None is kept open: the log cannot be restarted while a reader needs it.

This is safe beside the one writer. SQLite opens the file for reading only, so that the connection
can neither write nor run a checkpoint nor delete the log on closing (each needs a lock that such a
handle cannot take), and in WAL mode readers and the writer never wait for each other. The WAL-reset
bug needs two connections that write or run checkpoints; there is still one.

What a caller's own write committed before is in the snapshot: a commit is in the log when its reply
arrives.
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
    """Yield a connection with a snapshot of the database as it is now, until the block ends.

    Raises:
        StoreFailed: it cannot be opened or read.
    """
    try:
        with closing(open_read_only(path)) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise StoreFailed(f"{path} cannot be read: {error}.") from error


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a database for reading.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS
    )
    connection.execute("PRAGMA query_only = ON")
    return connection
