"""Ledger: what may happen to money: grants, holds, settlement, release and refund.

Owns the rules of each; each is one operation of the writer. It knows no prices: amounts are exact
integers.

A hold reserves the exact price before anything is computed, so settling can never fail for lack of
credit (two-phase transfers, docs.tigerbeetle.com/coding/two-phase-transfers).
"""

import asyncio
import sqlite3

from appliance.core.clock import Clock, seconds_to_midnight, utc_day
from appliance.core.errors import (
    DailyBudgetExceeded,
    HoldNotOpen,
    InsufficientCredit,
    InvalidRequest,
)
from appliance.core.failpoint import reach
from appliance.core.units import Picocredits, credits_text
from appliance.ledger import idempotency, transfer, usage
from appliance.ledger.entry import Balance, Charge, Hold, IdempotencyKey, Purchase
from appliance.ledger.schema import ISSUED, REVENUE
from appliance.ledger.transfer import POSTED_MAX, Transfer, read_balance, with_room
from appliance.ledger.wide_sum import total, wide_sum
from appliance.store.reader import reading
from appliance.store.write_request import Operation, T
from appliance.store.writer import Writer

INT64_MAX = 2**63 - 1

_HELD = "account, amount, price, tier, each, units, model, request_id"


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
            lambda connection: open_hold(connection, purchase, now_us),
            durable=False,
            essential=False,
        )

    async def require(self, purchase: Purchase) -> None:
        """Refuse a call that `hold` would refuse, without reserving anything.

        Raises:
            DailyBudgetExceeded: the key's budget of this day does not cover it.
            InsufficientCredit: the balance does not cover it.
        """
        now_us = self._clock.wall_us()
        # On the writer's thread, because its result depends on the holds before it in the queue.
        await self._writer.run(
            lambda connection: require_funds(connection, purchase, now_us), durable=False
        )

    async def settle(self, hold: Hold, idempotency_key: IdempotencyKey | None = None) -> Charge:
        """Charge a hold; it is on the disk when this returns.

        The charge is refunded if the process ends before its delivery was recorded (see
        `DeliveryAcks`). With `idempotency_key` a repetition of the call is recognized for a day.

        Raises:
            HoldNotOpen: it was settled or released already.
        """
        now_us = self._clock.wall_us()
        charge = await self._writer.run(
            lambda connection: settle_hold(connection, hold, now_us, idempotency_key)
        )
        reach("after_commit")
        return charge

    async def release(self, hold: Hold) -> None:
        """Release a hold; the call costs nothing.

        Raises:
            HoldNotOpen: it was settled or released already.
        """
        now_us = self._clock.wall_us()
        await self._writer.run(
            lambda connection: release_hold(connection, hold, now_us), durable=False
        )

    async def refund(self, seq: int) -> None:
        """Refund a charge whose answer was not delivered; a second time changes nothing."""
        now_us = self._clock.wall_us()
        await self._writer.run(lambda connection: refund(connection, seq, "refund", now_us))

    async def balance(self, key_id: str) -> Balance:
        """Return a key's balance.

        Raises:
            KeyNotFound: no account has this id.
        """
        now_us = self._clock.wall_us()
        return await self._read(lambda connection: read_balance(connection, key_id, now_us))

    async def _read(self, operation: Operation[T]) -> T:
        """Read on another thread than the writer's; what was committed before is seen."""

        def read() -> T:
            with reading(self._writer.path) as connection:
                return operation(connection)

        return await asyncio.to_thread(read)


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


def require_funds(connection: sqlite3.Connection, purchase: Purchase, now_us: int) -> None:
    """Refuse a purchase that the key cannot pay for now.

    Raises:
        DailyBudgetExceeded: the day's budget does not cover it.
        InsufficientCredit: the balance does not cover it.
        InvalidRequest: the balance of an unlimited key would be below `-POSTED_MAX`, or more than
            `POSTED_MAX` would be spent on this day.
    """
    balance = read_balance(connection, purchase.key_id, now_us)
    budget = purchase.daily_budget
    if budget is not None and balance.spent_today + balance.held + purchase.amount > budget:
        raise DailyBudgetExceeded(retry_after_s=seconds_to_midnight(now_us))
    if not balance.unlimited and balance.available < purchase.amount:
        raise InsufficientCredit(
            required=credits_text(purchase.amount), available=credits_text(balance.available)
        )
    today = balance.spent_today + balance.held + purchase.amount
    if balance.available - purchase.amount < -POSTED_MAX or today > POSTED_MAX:
        raise InvalidRequest(
            f"this key has spent {credits_text(POSTED_MAX)} credits, all that one key's account "
            "can hold; the operator mints another key, or adds credit to this one"
            if today <= POSTED_MAX
            else f"a key spends at most {credits_text(POSTED_MAX)} credits a day"
        )


def open_hold(connection: sqlite3.Connection, purchase: Purchase, now_us: int) -> Hold:
    """Reserve the price of a call; the check and the hold are one transaction."""
    require_funds(connection, purchase, now_us)
    transfer.move(connection, purchase.key_id, now_us=now_us, held=purchase.amount)
    cursor = connection.execute(
        f"INSERT INTO holds ({_HELD}, opened_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
        (
            purchase.key_id,
            purchase.amount,
            purchase.price,
            purchase.tier,
            purchase.each,
            purchase.units,
            purchase.model,
            purchase.request_id,
            now_us,
        ),
    )
    assert cursor.lastrowid is not None
    return Hold(cursor.lastrowid, purchase.key_id, purchase.amount)


def settle_hold(
    connection: sqlite3.Connection,
    hold: Hold,
    now_us: int,
    idempotency_key: IdempotencyKey | None = None,
) -> Charge:
    """Charge a hold."""
    account, amount, price, tier, each, units, model, request_id = _resolve(connection, hold)
    revenue = with_room(connection, REVENUE, amount)
    row = Transfer(
        0,
        "charge",
        account,
        revenue,
        amount,
        now_us,
        hold.id,
        None,
        price,
        tier,
        each,
        units,
        model,
    )
    seq = transfer.write(connection, row, request_id)
    balance = transfer.move(
        connection, account, now_us=now_us, posted=-amount, held=-amount, spent=amount
    )
    transfer.move(connection, revenue, now_us=now_us, posted=amount)
    usage.add(connection, row)
    connection.execute("INSERT INTO undelivered (seq) VALUES (?)", (seq,))
    if idempotency_key is not None:
        idempotency.keep(connection, account, idempotency_key, seq, now_us)
    reach("before_commit")
    return Charge(seq, Picocredits(amount), balance)


def release_hold(connection: sqlite3.Connection, hold: Hold, now_us: int) -> None:
    """Release a hold."""
    account, amount, *_ = _resolve(connection, hold)
    transfer.move(connection, account, now_us=now_us, held=-amount)


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


def _resolve(
    connection: sqlite3.Connection, hold: Hold
) -> tuple[str, int, int, str, int, int, str, str]:
    row: tuple[str, int, int, str, int, int, str, str] | None = connection.execute(
        f"DELETE FROM holds WHERE id = ? RETURNING {_HELD}",  # noqa: S608 - constants
        (hold.id,),
    ).fetchone()
    if row is None:
        raise HoldNotOpen(hold.id)
    return row
