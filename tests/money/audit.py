"""Audit: the books recomputed from their rows, by other means than the ledger's own.

Owns every relation between entries, holds and the cached balances that must hold at any moment.
Deliberately imports nothing of the appliance.
"""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

BALANCES = """
    SELECT key_id, unlimited, posted, held,
        (SELECT COALESCE(SUM(CASE kind WHEN 'grant' THEN amount ELSE -amount END), 0)
            FROM entries WHERE entries.key_id = accounts.key_id) AS computed,
        (SELECT COALESCE(SUM(amount), 0)
            FROM holds WHERE holds.key_id = accounts.key_id AND state = 'open') AS reserved
    FROM accounts
"""
WRONG_CHARGES = """
    SELECT entries.seq FROM entries LEFT JOIN holds ON holds.id = entries.hold_id
    WHERE entries.kind = 'charge' AND (
        holds.state IS NOT 'settled' OR holds.amount IS NOT entries.amount
        OR holds.key_id IS NOT entries.key_id OR holds.request_id IS NOT entries.request_id
        OR holds.model IS NOT entries.model OR holds.units IS NOT entries.units
        OR holds.tier IS NOT entries.tier
    )
"""
UNCHARGED = """
    SELECT holds.id FROM holds WHERE holds.state = 'settled'
        AND (SELECT COUNT(*) FROM entries WHERE entries.hold_id = holds.id) <> 1
"""
WRONG_DAYS = """
    SELECT key_id FROM accounts WHERE spent_today <> (
        SELECT COALESCE(SUM(amount), 0) FROM entries WHERE entries.key_id = accounts.key_id
            AND kind = 'charge' AND at_us / 86400000000 = accounts.day)
"""


def problems(connection: sqlite3.Connection, *, steady_clock: bool = True) -> list[str]:
    """Return everything that is wrong in the books; nothing is."""
    found = []
    for key_id, unlimited, posted, held, computed, reserved in connection.execute(BALANCES):
        if posted != computed:
            found.append(f"{key_id}: posted {posted}, its entries say {computed}")
        if held != reserved:
            found.append(f"{key_id}: held {held}, its open holds say {reserved}")
        if not unlimited and posted - held < 0:
            found.append(f"{key_id}: overdrawn by {held - posted}")
    found += [
        f"entry {seq} does not match its hold" for (seq,) in connection.execute(WRONG_CHARGES)
    ]
    found += [f"hold {key} has not one charge" for (key,) in connection.execute(UNCHARGED)]
    if steady_clock:
        found += [f"{key}: wrong sum of its day" for (key,) in connection.execute(WRONG_DAYS)]
    return found


class Books:
    """One look at a data directory's books, from outside the server."""

    def __init__(self, data_dir: Path) -> None:
        uri = f"{(data_dir / 'gigarouter.db').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)) as books:
            books.execute("BEGIN")
            self.problems = problems(books)
            [(verdict,)] = books.execute("PRAGMA integrity_check(1)").fetchall()
            if verdict != "ok":
                self.problems.append(verdict)
            self.problems += map(str, books.execute("PRAGMA foreign_key_check").fetchall())
            self.open_holds = books.execute(
                "SELECT COUNT(*) FROM holds WHERE state = 'open'"
            ).fetchone()[0]
            self.held = books.execute("SELECT COALESCE(SUM(held), 0) FROM accounts").fetchone()[0]
            self.charges = Counter(
                request_id
                for (request_id,) in books.execute(
                    "SELECT request_id FROM entries WHERE kind = 'charge'"
                )
            )
            self.charged = dict(
                books.execute("SELECT request_id, amount FROM entries WHERE kind = 'charge'")
            )
            self.grants = books.execute(
                "SELECT COUNT(*) FROM entries WHERE kind = 'grant'"
            ).fetchone()[0]
            self.posted = dict(books.execute("SELECT key_id, posted FROM accounts"))
