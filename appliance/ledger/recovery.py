"""Recovery: the calls that the last process did not finish.

Owns the release of every hold and the refund of every undelivered charge that a crash left. Runs
before the first call; no timer is needed, because the process that opened them has ended.
"""

import sqlite3
from dataclasses import dataclass

from appliance.ledger.ledger import refund


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was released and refunded."""

    released: int
    """Holds of calls that were interrupted; they cost nothing."""
    refunded: int
    """Charges whose answers were perhaps not delivered; refunded as `crash_refund`."""


def recover(connection: sqlite3.Connection, now_us: int) -> Recovered:
    """Release every hold and refund every undelivered charge."""
    released = connection.execute("DELETE FROM holds").rowcount
    connection.execute("UPDATE accounts SET held = 0 WHERE held <> 0")
    undelivered = connection.execute("SELECT seq FROM undelivered ORDER BY seq").fetchall()
    for (seq,) in undelivered:
        refund(connection, seq, "crash_refund", now_us)
    return Recovered(released, len(undelivered))
