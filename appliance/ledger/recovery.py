"""Recovery: the calls that the last process did not finish.

Owns the refund of every undelivered charge that a crash left; holds ended with the process. Runs
before the first call; no timer is needed, because the process that made them has ended.
"""

import sqlite3
from dataclasses import dataclass

from appliance.ledger.ledger import refund


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was refunded."""

    refunded: int
    """Charges whose answers were perhaps not delivered; refunded as `crash_refund`."""


def recover(connection: sqlite3.Connection, now_us: int) -> Recovered:
    """Refund every undelivered charge."""
    undelivered = connection.execute("SELECT seq FROM undelivered ORDER BY seq").fetchall()
    for (seq,) in undelivered:
        refund(connection, seq, "crash_refund", now_us)
    return Recovered(len(undelivered))
