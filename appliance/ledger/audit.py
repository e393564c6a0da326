"""Audit: the books compared with themselves.

Owns every relation between transfers, balances and sums that is true at any moment. Nothing
is repaired here: books that do not agree are closed until the operator has decided what to do.
"""

import sqlite3
from collections.abc import Iterator
from itertools import islice

from appliance.core.units import credits_text
from appliance.ledger import transfer
from appliance.ledger.wide_sum import total, wide_sum
from appliance.store.database import has_table
from appliance.store.error_class import classify

PROBLEMS_MAX = 10
"""Problems named in one report."""
LINKS_AT_START = 100_000
"""How many of the last transfers are hashed again before a server listens: about half a second."""

DEBITS = f"SELECT debit, {wide_sum('amount')} FROM transfers GROUP BY debit"  # noqa: S608 - constants
CREDITS = f"SELECT credit, {wide_sum('amount')} FROM transfers GROUP BY credit"  # noqa: S608 - constants
HELD = """
    SELECT id, held, COALESCE(amount, 0) FROM accounts
        LEFT JOIN (SELECT account, SUM(amount) AS amount FROM holds GROUP BY account)
        ON account = id WHERE held <> COALESCE(amount, 0)
"""
"""Of books from before m006, in which holds were rows."""
OVERDRAWN = "SELECT id, -posted FROM accounts WHERE kind = 'prepaid' AND posted < 0"
REFUNDS = """
    SELECT refund.seq FROM transfers AS refund JOIN transfers AS charge
        ON charge.seq = refund.refunds
    WHERE charge.kind <> 'charge' OR charge.debit <> refund.credit
        OR charge.amount <> refund.amount OR charge.credit <> refund.debit
"""
USAGE = """
    WITH charged AS (
        SELECT charge.at_us / 86400000000 AS day, charge.debit AS account, charge.model,
            charge.tier, charge.units, charge.amount, refund.seq IS NOT NULL AS is_refunded
        FROM transfers AS charge LEFT JOIN transfers AS refund ON refund.refunds = charge.seq
        WHERE charge.kind = 'charge' AND charge.at_us / 86400000000 > :removed
    )
    SELECT day, account FROM (
        SELECT day, account, model, tier, COUNT(*), SUM(units), SUM(amount), SUM(is_refunded),
            SUM(is_refunded * amount) FROM charged GROUP BY 1, 2, 3, 4
        EXCEPT SELECT day, account, model, tier, calls, units, amount, refunds, refunded
            FROM usage_days
    ) UNION ALL SELECT day, account FROM usage_days AS known WHERE day > :removed AND NOT EXISTS (
        SELECT 1 FROM charged WHERE charged.day = known.day AND charged.account = known.account
            AND charged.model = known.model AND charged.tier = known.tier)
"""
SPENT = """
    WITH sums AS (
        SELECT account, day, SUM(amount - refunded) AS amount FROM usage_days GROUP BY 1, 2
    )
    SELECT id FROM accounts LEFT JOIN sums ON account = id AND sums.day = accounts.day
    WHERE kind <> 'system' AND spent_today <> COALESCE(amount, 0)
"""


def problems(connection: sqlite3.Connection, *, links: int | None = None) -> list[str]:
    """Return what is wrong in the books, one line each; an empty list if they agree.

    With `links` only so many of the last transfers are hashed again, and the sums of days are not
    compared: that is short enough for the start of a server.

    Raises:
        sqlite3.Error: the database cannot be read now, but is not damaged.
    """
    try:
        return list(islice(_problems(connection, links), PROBLEMS_MAX))
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if classify(error) != "fatal":
            raise
        return [f"they cannot be read: {' '.join(str(error).split())}"]


def _wrong_balances(connection: sqlite3.Connection) -> Iterator[str]:
    [halves] = connection.execute(f"SELECT {wide_sum('posted')} FROM accounts")  # noqa: S608 - constants
    if total(halves):
        yield f"the accounts sum to {credits_text(total(halves))} credits, not to zero"
    computed = transfer.opening_balances(connection)
    for account, *halves in connection.execute(DEBITS):
        computed[account] -= total(halves)
    for account, *halves in connection.execute(CREDITS):
        computed[account] += total(halves)
    for account, posted in connection.execute("SELECT id, posted FROM accounts"):
        if posted != computed[account]:
            yield f"{account}: its balance is {posted}, its transfers say {computed[account]}"


def _problems(connection: sqlite3.Connection, links: int | None) -> Iterator[str]:
    yield from _wrong_balances(connection)
    if has_table(connection, "holds"):
        for account, held, computed in connection.execute(HELD):
            yield f"{account}: {held} are held, its open holds say {computed}"
    for account, by in connection.execute(OVERDRAWN):
        yield f"{account}: is overdrawn by {by}"
    last = transfer.chain_tip(connection).seq
    after = 0 if links is None else max(0, last - links)
    for seq in transfer.broken_links(connection, after=after):
        yield f"transfer {seq} is not what was written, or one before it is gone"
    if links is not None:
        return
    for (seq,) in connection.execute(REFUNDS):
        yield f"transfer {seq} refunds another charge than it says"
    removed = {"removed": transfer.checkpoint(connection).day}
    for day, account in connection.execute(USAGE, removed):
        yield f"{account}: its sums of day {day} are not those of its transfers"
    for (account,) in connection.execute(SPENT):
        yield f"{account}: what it spent today is not what its day says"
