"""Audit: the books recomputed from their rows, by other means than the ledger's own.

Owns every relation between transfers, cached balances and sums that must hold at any moment,
worked out in plain Python, row by row. It imports nothing of the appliance, so that both cannot
share a fault.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

DAY_US = 86_400_000_000
ROW = "seq, kind, debit, credit, amount, at_us, hold_id, refunds, price, tier, each, units, model"


def problems(connection: sqlite3.Connection) -> list[str]:
    """Return everything that is wrong in the books; nothing is."""
    connection.row_factory, kept = sqlite3.Row, connection.row_factory
    try:
        return _problems(connection)
    finally:
        connection.row_factory = kept


def _problems(connection: sqlite3.Connection) -> list[str]:
    transfers = connection.execute(f"SELECT {ROW}, hash FROM transfers ORDER BY seq").fetchall()
    removed = connection.execute("SELECT seq, hash, day FROM checkpoint").fetchall()
    gone, before, day = tuple(removed[0]) if removed else (0, bytes(32), -1)
    opening = Counter(
        {
            row["account"]: row["posted"]
            for row in connection.execute("SELECT * FROM opening_balances")
        }
    )
    prices = {p["version"]: p for p in connection.execute("SELECT * FROM prices")}
    charges = {row["seq"]: row for row in transfers if row["kind"] == "charge"}
    refunded = {row["refunds"] for row in transfers if row["refunds"] is not None}
    found = _wrong_rows(transfers, prices) + _wrong_chain(transfers, gone, before)
    kept = {seq: row for seq, row in charges.items() if seq not in refunded}
    found += _wrong_accounts(connection, transfers, kept, opening, day)
    if len({row["hold_id"] for row in charges.values()}) != len(charges):
        found.append("a hold is charged twice")
    undelivered = {row[0] for row in connection.execute("SELECT seq FROM undelivered")}
    if undelivered & refunded or not undelivered <= charges.keys():
        found.append("what is undelivered was refunded, or is no charge")
    return found + _wrong_sums(connection, charges, refunded, day)


def _wrong_accounts(connection: sqlite3.Connection, transfers, kept, opening, day) -> list[str]:
    accounts = connection.execute("SELECT * FROM accounts").fetchall()
    found, posted = [], Counter(opening)
    for row in transfers:
        posted[row["debit"]] -= row["amount"]
        posted[row["credit"]] += row["amount"]
    if sum(posted.values()) or sum(account["posted"] for account in accounts):
        found.append("the postings do not sum to zero")
    for account in accounts:
        name = account["id"]
        if account["posted"] != posted[name]:
            found.append(f"{name}: posted {account['posted']}, its transfers say {posted[name]}")
        if account["kind"] == "prepaid" and account["posted"] < 0:
            found.append(f"{name}: overdrawn")
        if account["day"] > day and account["spent_today"] != sum(
            row["amount"]
            for row in kept.values()
            if row["debit"] == name and row["at_us"] // DAY_US == account["day"]
        ):
            found.append(f"{name}: wrong sum of its day")
    return found


def _wrong_rows(transfers, prices) -> list[str]:
    found = []
    kinds = {row["seq"]: row for row in transfers}
    for row in transfers:
        seq = row["seq"]
        if row["kind"] == "charge" and row["price"] is not None:
            version = prices[row["price"]]
            if row["each"] != version[row["tier"]] or row["model"] != version["model"]:
                found.append(f"charge {seq} has another price than its version says")
            if row["amount"] != row["each"] * row["units"]:
                found.append(f"charge {seq} is not its units times its price")
        if row["refunds"] is not None:
            charge = kinds[row["refunds"]]
            back = row["credit"], row["debit"], row["amount"]
            if (charge["debit"], charge["credit"], charge["amount"]) != back:
                found.append(f"refund {seq} gives back something else")
    return found


def _wrong_chain(transfers, gone, before) -> list[str]:
    """`gone` transfers were removed; the last of them had the hash `before`."""
    found = []
    for number, row in enumerate(transfers, start=gone + 1):
        text = json.dumps(list(row)[:-1], separators=(",", ":"), ensure_ascii=False)
        if row["seq"] != number or row["hash"] != hashlib.sha256(before + text.encode()).digest():
            found.append(f"transfer {row['seq']} is not linked to the one before it")
        before = row["hash"]
    return found


def _wrong_sums(connection: sqlite3.Connection, charges, refunded, day) -> list[str]:
    """Of the days after `day`, of which nothing was removed."""
    sums: dict[tuple[object, ...], Counter] = {}
    for seq, row in charges.items():
        if row["at_us"] // DAY_US <= day:
            continue
        group = row["at_us"] // DAY_US, row["debit"], row["model"], row["tier"]
        one = Counter(calls=1, units=row["units"], amount=row["amount"])
        if seq in refunded:
            one.update(refunds=1, refunded=row["amount"])
        sums.setdefault(group, Counter()).update(one)
    kept = {
        (row["day"], row["account"], row["model"], row["tier"]): row
        for row in connection.execute("SELECT * FROM usage_days WHERE day > ?", (day,))
    }
    columns = ("calls", "units", "amount", "refunds", "refunded")
    if kept.keys() != sums.keys():
        return ["sums of days are missing, or of nothing"]
    return [
        f"{group}: wrong sums"
        for group, row in kept.items()
        if [row[column] for column in columns] != [sums[group][column] for column in columns]
    ]


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
            rows = books.execute(
                "SELECT charge.request_id, charge.amount, refund.kind FROM transfers AS charge"
                " LEFT JOIN transfers AS refund ON refund.refunds = charge.seq"
                " WHERE charge.kind = 'charge'"
            ).fetchall()
            self.charges = Counter(request_id for request_id, _, _ in rows)
            self.charged = {request_id: amount for request_id, amount, _ in rows}
            self.refunded = {request_id: kind for request_id, _, kind in rows if kind}
            [(self.undelivered,)] = books.execute("SELECT COUNT(*) FROM undelivered").fetchall()
            [(self.grants,)] = books.execute(
                "SELECT COUNT(*) FROM transfers WHERE kind = 'grant'"
            ).fetchall()
            self.posted = dict(
                books.execute("SELECT id, posted FROM accounts WHERE kind <> 'system'")
            )
