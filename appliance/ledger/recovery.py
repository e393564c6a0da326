"""Recovery: what a new process owes to the calls of the last one.

Owns the end of every hold and of every undelivered charge that a crash left behind. Runs before the
first call; no timer is needed, because the process that opened them is gone.
"""

import sqlite3
from dataclasses import dataclass

from appliance.ledger.ledger import refund


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found, and ended."""

    released: int
    """Holds of calls that were cut off; they cost nothing."""
    refunded: int
    """Charges whose answers were perhaps never handed over; given back as `crash_refund`."""


def recover(connection: sqlite3.Connection, now_us: int) -> Recovered:
    """Release every hold and refund every undelivered charge."""
    released = connection.execute("DELETE FROM holds").rowcount
    connection.execute("UPDATE accounts SET held = 0 WHERE held <> 0")
    undelivered = connection.execute("SELECT seq FROM undelivered ORDER BY seq").fetchall()
    for (seq,) in undelivered:
        refund(connection, seq, "crash_refund", now_us)
    return Recovered(released, len(undelivered))
