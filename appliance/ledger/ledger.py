"""Ledger: the only SQL that moves credits.

Owns grants, holds, settlement and release, and the recovery that runs before the first call of a
new process. Deliberately knows no prices: amounts arrive as exact integers.

A hold reserves the exact price before anything is computed, so settling can never fail for lack of
credit (two-phase transfers, docs.tigerbeetle.com/coding/two-phase-transfers).
"""

import sqlite3

from appliance.core.clock import Clock, seconds_to_midnight, utc_day
from appliance.core.errors import (
    DailyBudgetExceeded,
    HoldNotOpen,
    InsufficientCredit,
    InvalidRequest,
    KeyNotFound,
)
from appliance.core.units import PICOCREDITS_PER_CREDIT, Picocredits, credits_text
from appliance.ledger.entry import Balance, Hold, Purchase
from appliance.store.writer import Writer

POSTED_MAX = 8_000_000 * PICOCREDITS_PER_CREDIT
"""No account may hold more: int64 ends at 9.2 million credits."""


class Ledger:
    """The books of one data directory."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock

    async def hold(self, purchase: Purchase) -> Hold:
        """Reserve the exact price of a call.

        The reservation needs no disk flush: after a loss of power every hold is void anyway.

        Raises:
            DailyBudgetExceeded: the key's budget of this day does not cover it.
            InsufficientCredit: the balance does not cover it.
        """
        now_us = self._clock.wall_us()
        return await self._writer.run(
            lambda connection: open_hold(connection, purchase, now_us), durable=False
        )

    async def require(self, purchase: Purchase) -> None:
        """Refuse a call that `hold` would refuse, without reserving anything.

        Raises:
            DailyBudgetExceeded: the key's budget of this day does not cover it.
            InsufficientCredit: the balance does not cover it.
        """
        now_us = self._clock.wall_us()
        await self._writer.run(
            lambda connection: require_funds(connection, purchase, now_us), durable=False
        )

    async def settle(self, hold: Hold) -> Balance:
        """Charge a hold; it is on the disk when this returns.

        Raises:
            HoldNotOpen: it was settled or released already.
        """
        now_us = self._clock.wall_us()
        return await self._writer.run(lambda connection: settle_hold(connection, hold, now_us))

    async def release(self, hold: Hold) -> None:
        """Give a hold back; the call costs nothing.

        Raises:
            HoldNotOpen: it was settled or released already.
        """
        now_us = self._clock.wall_us()
        await self._writer.run(
            lambda connection: release_hold(connection, hold, now_us), durable=False
        )

    async def balance(self, key_id: str) -> Balance:
        """Return a key's balance.

        Raises:
            KeyNotFound: no account has this id.
        """
        now_us = self._clock.wall_us()
        return await self._writer.run(
            lambda connection: read_balance(connection, key_id, now_us), durable=False
        )


def open_account(connection: sqlite3.Connection, key_id: str, *, unlimited: bool) -> None:
    """Start the books of a new key."""
    connection.execute(
        "INSERT INTO accounts (key_id, unlimited) VALUES (?, ?)", (key_id, int(unlimited))
    )


def grant(connection: sqlite3.Connection, key_id: str, amount: Picocredits, now_us: int) -> None:
    """Add credits to a key.

    Raises:
        KeyNotFound: no account has this id.
        InvalidRequest: the account would hold more than `POSTED_MAX`.
    """
    assert amount >= 0
    row = connection.execute("SELECT posted FROM accounts WHERE key_id = ?", (key_id,)).fetchone()
    if row is None:
        raise KeyNotFound(key_id)
    if row[0] + amount > POSTED_MAX:
        raise InvalidRequest(
            f"a key holds at most {credits_text(POSTED_MAX)} credits", param="credit"
        )
    connection.execute(
        "INSERT INTO entries (key_id, kind, amount, at_us) VALUES (?, 'grant', ?, ?)",
        (key_id, amount, now_us),
    )
    connection.execute("UPDATE accounts SET posted = posted + ? WHERE key_id = ?", (amount, key_id))


def require_funds(connection: sqlite3.Connection, purchase: Purchase, now_us: int) -> None:
    """Refuse a purchase that the key cannot pay for today.

    Raises:
        DailyBudgetExceeded: the day's budget does not cover it.
        InsufficientCredit: the balance does not cover it.
    """
    balance = read_balance(connection, purchase.key_id, now_us)
    budget = purchase.daily_budget
    if budget is not None and balance.spent_today + balance.held + purchase.amount > budget:
        raise DailyBudgetExceeded(retry_after_s=seconds_to_midnight(now_us))
    if not balance.unlimited and balance.available < purchase.amount:
        raise InsufficientCredit(
            required=credits_text(purchase.amount), available=credits_text(balance.available)
        )


def open_hold(connection: sqlite3.Connection, purchase: Purchase, now_us: int) -> Hold:
    """Reserve the price of a call; reading and writing happen in one transaction."""
    require_funds(connection, purchase, now_us)
    connection.execute(
        "UPDATE accounts SET held = held + ? WHERE key_id = ?",
        (purchase.amount, purchase.key_id),
    )
    cursor = connection.execute(
        "INSERT INTO holds (key_id, amount, state, request_id, model, tier, units, opened_us) "
        "VALUES (?, ?, 'open', ?, ?, ?, ?, ?)",
        (purchase.key_id, purchase.amount, purchase.request_id, purchase.model, purchase.tier,
         purchase.units, now_us),
    )  # fmt: skip
    assert cursor.lastrowid is not None
    return Hold(cursor.lastrowid, purchase.key_id, purchase.amount)


def settle_hold(connection: sqlite3.Connection, hold: Hold, now_us: int) -> Balance:
    """Turn a hold into a charge."""
    _resolve(connection, hold, "settled", now_us)
    connection.execute(
        "INSERT INTO entries (key_id, kind, amount, hold_id, request_id, model, tier, units, at_us)"
        " SELECT key_id, 'charge', amount, id, request_id, model, tier, units, ?"
        " FROM holds WHERE id = ?",
        (now_us, hold.id),
    )
    day = utc_day(now_us)
    connection.execute(
        "UPDATE accounts SET posted = posted - :amount, held = held - :amount,"
        " spent_today = CASE day WHEN :day THEN spent_today ELSE 0 END + :amount, day = :day"
        " WHERE key_id = :key_id",
        {"amount": hold.amount, "day": day, "key_id": hold.key_id},
    )
    return read_balance(connection, hold.key_id, now_us)


def release_hold(connection: sqlite3.Connection, hold: Hold, now_us: int) -> None:
    """Give a hold back."""
    _resolve(connection, hold, "released", now_us)
    connection.execute(
        "UPDATE accounts SET held = held - ? WHERE key_id = ?", (hold.amount, hold.key_id)
    )


def read_balance(connection: sqlite3.Connection, key_id: str, now_us: int) -> Balance:
    """Return a key's balance.

    Raises:
        KeyNotFound: no account has this id.
    """
    row = connection.execute(
        "SELECT posted, held, day, spent_today, unlimited FROM accounts WHERE key_id = ?",
        (key_id,),
    ).fetchone()
    if row is None:
        raise KeyNotFound(key_id)
    posted, held, day, spent_today, unlimited = row
    return Balance(
        posted=posted,
        held=held,
        spent_today=spent_today if day == utc_day(now_us) else Picocredits(0),
        unlimited=bool(unlimited),
    )


def recover(connection: sqlite3.Connection, now_us: int) -> int:
    """Void every open hold: the process that opened it is gone. Return how many there were."""
    released = connection.execute(
        "UPDATE holds SET state = 'released', resolved_us = ? WHERE state = 'open'", (now_us,)
    ).rowcount
    connection.execute("UPDATE accounts SET held = 0 WHERE held <> 0")
    return released


def _resolve(connection: sqlite3.Connection, hold: Hold, state: str, now_us: int) -> None:
    changed = connection.execute(
        "UPDATE holds SET state = ?, resolved_us = ? WHERE id = ? AND state = 'open'",
        (state, now_us, hold.id),
    ).rowcount
    if changed != 1:
        raise HoldNotOpen(hold.id)
