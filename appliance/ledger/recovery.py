"""Recovery: the calls that the last process did not finish.

Owns the refund of every undelivered charge that a crash left; holds ended with the process. Runs
before the first call; no timer is needed, because the process that made them has ended. Charges for
lines of batches that go on stay: their lines are computed again for nothing.
"""

import sqlite3
from dataclasses import dataclass

from appliance.ledger import batches
from appliance.ledger.ledger import refund

UNDELIVERED = f"""
    SELECT seq FROM undelivered WHERE batch IS NULL
        OR NOT EXISTS (SELECT 1 FROM batches WHERE id = batch AND {batches.IS_OPEN})
    ORDER BY seq
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was refunded."""

    refunded: int
    """Charges whose answers were perhaps not delivered; refunded as `crash_refund`."""


def recover(connection: sqlite3.Connection, now_us: int) -> Recovered:
    """Refund every undelivered charge but those of lines of batches that go on."""
    undelivered = connection.execute(UNDELIVERED).fetchall()
    for (seq,) in undelivered:
        refund(connection, seq, "crash_refund", now_us)
    return Recovered(len(undelivered))
