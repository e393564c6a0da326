"""Ledger: what may happen to money: grants, holds, settlement, release and refund.

Owns the rules of each. What happened is one operation of the writer; what is only reserved is in
memory (`Balances`). It knows no prices: amounts are exact integers.

A hold reserves the exact price before anything is computed, so settling can never fail for lack of
credit (two-phase transfers, docs.tigerbeetle.com/coding/two-phase-transfers).
"""

import sqlite3

from appliance.core.clock import Clock, utc_day
from appliance.core.errors import InvalidRequest
from appliance.core.failpoint import reach
from appliance.core.flow import FlowReading
from appliance.core.units import Picocredits, credits_text
from appliance.ledger import idempotency, transfer, usage
from appliance.ledger.balances import Balances
from appliance.ledger.entry import (
    Balance,
    BatchLine,
    Charge,
    Hold,
    IdempotencyKey,
    Purchase,
    Repeatable,
)
from appliance.ledger.schema import ISSUED, REVENUE
from appliance.ledger.transfer import POSTED_MAX, Transfer, read_balance, with_room
from appliance.ledger.wide_sum import total, wide_sum
from appliance.store.writer import Writer

INT64_MAX = 2**63 - 1


class Ledger:
    """The books of one data directory."""

    def __init__(self, writer: Writer, balances: Balances, clock: Clock) -> None:
        self._writer = writer
        self._balances = balances
        self._clock = clock

    def hold(self, purchase: Purchase) -> Hold:
        """Reserve the exact price of a call until it is settled or released, or this process ends.

        Raises:
            DailyBudgetExceeded: the key's budget of this day does not cover it.
            InsufficientCredit: the balance does not cover it.
            QueueFull, StorageFull, LedgerUnavailable: it could not be settled now.
        """
        self._writer.require_room()
        return self._balances.hold(purchase, self._clock.wall_us())

    def require(self, purchase: Purchase) -> None:
        """Refuse a call that `hold` would refuse, without reserving anything.

        Raises:
            DailyBudgetExceeded: the key's budget of this day does not cover it.
            InsufficientCredit: the balance does not cover it.
        """
        self._balances.require(purchase, self._clock.wall_us())

    async def settle(self, hold: Hold, idempotency_key: Repeatable | None = None) -> Charge:
        """Charge a hold; it is on the disk when this returns.

        The charge is refunded if the process ends before its delivery was recorded (see
        `DeliveryAcks`). With `idempotency_key` a repetition of the call is recognized for a day.
        A hold whose charge fails is open again.

        Raises:
            HoldNotOpen: it was settled or released already.
            QueueFull, StorageFull, LedgerUnavailable: the charge is not in the books.
        """
        self._balances.begin_settling(hold)
        now_us = self._clock.wall_us()
        try:
            charge = await self._writer.run(
                lambda connection: settle_hold(connection, hold, now_us, idempotency_key)
            )
        except Exception:
            self._balances.give_up_settling(hold)
            raise
        reach("after_commit")
        return charge

    def release(self, hold: Hold) -> None:
        """Release a hold; the call costs nothing.

        Raises:
            HoldNotOpen: it was settled or released already.
        """
        self._balances.release(hold)

    async def refund(self, seq: int) -> None:
        """Refund a charge whose answer was not delivered; a second time changes nothing."""
        now_us = self._clock.wall_us()
        await self._writer.run(lambda connection: refund(connection, seq, "refund", now_us))

    def balance(self, key_id: str) -> Balance:
        """Return a key's balance, less what calls in flight reserve of it.

        Raises:
            KeyNotFound: no account has this id.
        """
        return self._balances.balance(key_id, self._clock.wall_us())

    @property
    def holds_open(self) -> int:
        """How many calls' prices are reserved now."""
        return self._balances.holds_open

    def flows(self) -> FlowReading:
        """Return what was written since the start, and what prepaid keys can still spend."""
        return self._balances.flows()

    def available(self, key_id: str) -> Picocredits | None:
        """Return what a key can still spend; None: it is unlimited. Never fails for a key."""
        return self._balances.available(key_id)


def open_account(connection: sqlite3.Connection, key_id: str, *, unlimited: bool) -> None:
    """Open the account of a new key."""
    connection.execute(
        "INSERT INTO accounts (id, key_id, kind) VALUES (?1, ?1, ?2)",
        (key_id, "unlimited" if unlimited else "prepaid"),
    )


def grant(connection: sqlite3.Connection, key_id: str, amount: Picocredits, now_us: int) -> None:
    """Add credits to a key.

    Raises:
        KeyNotFound: no account has this id.
        InvalidRequest: the account would hold more than `POSTED_MAX`; `param` is `credit`.
    """
    assert amount >= 0
    posted = read_balance(connection, key_id, now_us).posted
    # A charge that is not delivered yet may still be refunded.
    room = min(POSTED_MAX - posted, INT64_MAX - posted - _undelivered(connection, key_id))
    if amount > room:
        raise InvalidRequest(
            f"credit: a key holds at most {credits_text(POSTED_MAX)} credits, and this one has "
            f"room for {credits_text(max(0, room))}; add at most that, or mint another key",
            param="credit",
        )
    issued = with_room(connection, ISSUED, amount)
    transfer.write(connection, Transfer(0, "grant", issued, key_id, amount, now_us), None)
    transfer.move(connection, issued, now_us=now_us, posted=-amount)
    transfer.move(connection, key_id, now_us=now_us, posted=amount)


def _undelivered(connection: sqlite3.Connection, key_id: str) -> int:
    """Return the sum of a key's charges whose answers are not delivered yet."""
    row = connection.execute(
        f"SELECT {wide_sum('amount')} FROM undelivered CROSS JOIN transfers USING (seq)"  # noqa: S608 - constants
        " WHERE debit = ?",
        (key_id,),
    ).fetchone()
    return total(row)


def settle_hold(
    connection: sqlite3.Connection,
    hold: Hold,
    now_us: int,
    idempotency_key: Repeatable | None = None,
) -> Charge:
    """Write the charge of a hold; the database refuses a second one of the same hold."""
    bought, account, amount = hold.purchase, hold.key_id, hold.amount
    revenue = with_room(connection, REVENUE, amount)
    row = Transfer(
        0,
        "charge",
        account,
        revenue,
        amount,
        now_us,
        hold.id,
        price=bought.price,
        tier=bought.tier,
        each=bought.each,
        units=bought.units,
        model=bought.model,
    )
    seq = transfer.write(connection, row, bought.request_id)
    transfer.move(connection, account, now_us=now_us, posted=-amount, spent=amount)
    transfer.move(connection, revenue, now_us=now_us, posted=amount)
    usage.add(connection, row, bought.tokens)
    if isinstance(idempotency_key, BatchLine):
        connection.execute(
            "INSERT INTO undelivered (seq, batch, line) VALUES (?, ?, ?)",
            (seq, idempotency_key.batch, idempotency_key.line),
        )
    else:
        connection.execute("INSERT INTO undelivered (seq) VALUES (?)", (seq,))
    if isinstance(idempotency_key, IdempotencyKey):
        idempotency.keep(connection, account, idempotency_key, seq, now_us)
    reach("before_commit")
    return Charge(seq, amount)


def refund(connection: sqlite3.Connection, seq: int, kind: str, now_us: int) -> bool:
    """Refund an undelivered charge; return whether it was still undelivered."""
    if not connection.execute("DELETE FROM undelivered WHERE seq = ?", (seq,)).rowcount:
        return False
    charge = Transfer(*connection.execute(f"{transfer.SELECT} WHERE seq = ?", (seq,)).fetchone())
    row = Transfer(0, kind, charge.credit, charge.debit, charge.amount, now_us, refunds=seq)
    transfer.write(connection, row, None)
    is_of_today = utc_day(charge.at_us) == utc_day(now_us)
    transfer.move(connection, charge.credit, now_us=now_us, posted=-charge.amount)
    transfer.move(
        connection,
        charge.debit,
        now_us=now_us,
        posted=charge.amount,
        spent=-charge.amount if is_of_today else 0,
    )
    usage.take_back(connection, charge)
    idempotency.drop(connection, seq)
    return True


def forget(
    connection: sqlite3.Connection, key_id: str, *, after: int = 0, rows_max: int = 1000
) -> int | None:
    """Remove the request ids from up to `rows_max` of a key's charges later than `after`.

    Returns the `after` of the next part, or None if there are no more.
    """
    connection.execute("DELETE FROM repeats WHERE account = ?", (key_id,))
    seqs = connection.execute(
        "SELECT seq FROM transfers WHERE debit = ? AND seq > ? ORDER BY seq LIMIT ?",
        (key_id, after, rows_max),
    ).fetchall()
    connection.executemany(
        "UPDATE transfers SET request_id = NULL WHERE seq = ? AND request_id IS NOT NULL", seqs
    )
    return int(seqs[-1][0]) if len(seqs) == rows_max else None
