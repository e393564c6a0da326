"""Retention: the rows of old calls, removed once the operator wants them no longer.

Owns which transfers may go and what stays in their place: their sum in each account
(`opening_balances`), the sums of their days, and the number and the hash of the last of them
(`checkpoint`). The hash chain goes on from there: the first row that is left covers that hash, so
it cannot be another one. A backup from before proves the rest (`disagreements`).
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator

from appliance.core.clock import utc_day
from appliance.core.units import credits_text
from appliance.ledger import idempotency, transfer
from appliance.ledger.wide_sum import total, wide_sum

ROWS_MAX = 500
"""Transfers removed in one operation: calls wait for the writer meanwhile."""

OLD = "SELECT seq, at_us, debit, credit, amount FROM transfers WHERE seq > ? ORDER BY seq LIMIT ?"
REFUNDED = "SELECT MIN(refunds) FROM transfers WHERE refunds <= ?1 AND +seq > ?1"
"""The first charge up to a transfer that a later one refunds."""
OPENING = """
    INSERT INTO opening_balances (account, posted) VALUES (?, ?)
    ON CONFLICT DO UPDATE SET posted = posted + excluded.posted
"""


def remove(connection: sqlite3.Connection, before_us: int, now_us: int) -> int:
    """Remove the oldest transfers from before a moment, `ROWS_MAX` at most; return how many.

    What is undelivered, may be repeated or is refunded by a row that stays is not removed, nor is
    anything after it; the last transfer of all always stays.
    """
    idempotency.drop_old(connection, now_us)
    gone = transfer.checkpoint(connection).seq
    last = _last(connection, gone, before_us)
    if last <= gone:
        return 0
    moved: Counter[str] = Counter()
    day = 0
    for _, at_us, debit, credit, amount in connection.execute(OLD, (gone, last - gone)):
        moved[debit] -= amount
        moved[credit] += amount
        day = max(day, utc_day(at_us))
    connection.executemany(OPENING, moved.items())
    connection.execute(
        "INSERT INTO checkpoint (id, seq, hash, day) SELECT 1, seq, hash, ? FROM transfers"
        " WHERE seq = ? ON CONFLICT DO UPDATE"
        " SET seq = excluded.seq, hash = excluded.hash, day = MAX(day, excluded.day)",
        (day, last),
    )
    return connection.execute("DELETE FROM transfers WHERE seq <= ?", (last,)).rowcount


def _last(connection: sqlite3.Connection, gone: int, before_us: int) -> int:
    """Return the last transfer that may be removed now; `gone`, or less: none may."""
    last = gone
    for seq, at_us, *_ in connection.execute(OLD, (gone, ROWS_MAX)):
        if at_us >= before_us:
            break
        last = seq
    last = min(last, transfer.chain_tip(connection).seq - 1)
    for table in ("undelivered", "repeats"):
        [(seq,)] = connection.execute(f"SELECT MIN(seq) FROM {table}")  # noqa: S608 - constants
        last = last if seq is None else min(last, seq - 1)
    while last > gone:
        [(charge,)] = connection.execute(REFUNDED, (last,))
        if charge is None:
            break
        last = charge - 1
    return last


def disagreements(connection: sqlite3.Connection, backup: sqlite3.Connection) -> Iterator[str]:
    """Yield how what was removed differs from a backup that has it still.

    Of what was removed before the backup was made, too, its own sums are believed.
    """
    end = transfer.checkpoint(connection)
    if not end.seq:
        return
    if not transfer.checkpoint(backup).seq < end.seq <= transfer.chain_tip(backup).seq:
        yield f"the backup does not have what was removed up to transfer {end.seq}"
        return
    for seq in transfer.broken_links(backup):
        if seq <= end.seq:
            yield f"transfer {seq} of the backup is not what was written"
    if transfer.hash_of(backup, end.seq) != end.hash:
        yield f"transfer {end.seq} of the backup is another one than was removed here"
    there, here = transfer.opening_balances(backup), transfer.opening_balances(connection)
    for side, sign in (("debit", -1), ("credit", 1)):
        for account, *halves in backup.execute(
            f"SELECT {side}, {wide_sum('amount')} FROM transfers"  # noqa: S608 - constants
            f" WHERE seq <= ? GROUP BY {side}",
            (end.seq,),
        ):
            there[account] += sign * total(halves)
    for account in sorted(there.keys() | here.keys()):
        if there[account] != here[account]:
            yield (
                f"{account}: what was removed is summed as {credits_text(here[account])} credits, "
                f"in the backup it is {credits_text(there[account])}"
            )
