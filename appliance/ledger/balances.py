"""Balances: what each key has, in memory, and what the calls in flight reserve of it.

Owns the open holds. The books hold only what happened; a hold is a promise of this process and ends
with it. Balances are those of the last commit. The writer hands them over in the moment in which it
is done, together with the holds that it charged: no amount is ever both held and charged, and none
is neither. Safe for any thread; one transaction is seen entirely or not at all.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.core.clock import seconds_to_midnight, utc_day
from appliance.core.errors import (
    DailyBudgetExceeded,
    HoldNotOpen,
    InsufficientCredit,
    InvalidRequest,
    KeyNotFound,
)
from appliance.core.flow import FlowReading
from appliance.core.units import Picocredits, credits_text
from appliance.ledger.entry import Balance, Hold, Purchase
from appliance.ledger.flows import Flows
from appliance.ledger.transfer import POSTED_MAX, chain_tip, read_balance
from appliance.store.reader import reading

CHANGED = """
    SELECT debit, credit, kind, tier, model, units, amount, hold_id FROM transfers WHERE seq > ?
"""
ACCOUNTS = """
    SELECT id, posted, day, spent_today, kind = 'unlimited' FROM accounts WHERE kind <> 'system'
"""
OPENED = f"{ACCOUNTS} AND rowid > ?"
ONE = f"{ACCOUNTS} AND id = ?"


@dataclass(slots=True)
class _Account:
    """One key's row of `accounts`, and what is held of it."""

    posted: int
    day: int
    spent: int
    """On `day`."""
    unlimited: bool
    held: int


class Balances:
    """Every key's balance, less what is held of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        self._open: dict[int, Hold] = {}
        self._settling: set[int] = set()
        """The open holds whose charge is on its way."""
        self._hold_id = 0
        self._seq: int | None = None
        """The last transfer that is in the balances; None: none were loaded yet."""
        self._rowid = 0
        """The last account that is."""
        self._flows = Flows()

    def __repr__(self) -> str:
        """Count accounts and open holds."""
        return f"<Balances [{len(self._accounts)} keys | {len(self._open)} holds]>"

    # -- for the writer ------------------------------------------------------------------------

    def load(self, connection: sqlite3.Connection) -> None:
        """Read every account; nothing is held yet."""
        rows = connection.execute(ACCOUNTS).fetchall()
        [(hold_id,)] = connection.execute("SELECT COALESCE(MAX(hold_id), 0) FROM transfers")
        with self._lock:
            self._accounts = {
                name: _Account(posted, day, spent, unlimited, held=0)
                for name, posted, day, spent, unlimited in rows
            }
            self._hold_id = hold_id
            self._seq, self._rowid = chain_tip(connection).seq, _last_account(connection)

    def follow(self, connection: sqlite3.Connection) -> Callable[[], None]:
        """Read what a transaction changes, before its commit; what is returned takes it over.

        An operation that is undone leaves nothing to be read, and one that runs again is read
        again.
        """
        if self._seq is None:
            return _nothing
        changed = connection.execute(CHANGED, (self._seq,)).fetchall()
        rowid = _last_account(connection)
        if not changed and rowid == self._rowid:
            return _nothing
        rows = connection.execute(OPENED, (self._rowid,)).fetchall()
        for account in {name for debit, credit, *_ in changed for name in (debit, credit)}:
            rows += connection.execute(ONE, (account,)).fetchall()
        charged = [hold_id for *_, hold_id in changed if hold_id is not None]
        seq = self._seq + len(changed)

        def take_over() -> None:
            with self._lock:
                for name, posted, day, spent, unlimited in rows:
                    known = self._accounts.get(name)
                    held = known.held if known else 0
                    self._accounts[name] = _Account(posted, day, spent, unlimited, held)
                for hold_id in charged:
                    self._end(hold_id)
                self._flows.add(row[:-1] for row in changed)
                self._seq, self._rowid = seq, rowid

        return take_over

    # -- for calls -----------------------------------------------------------------------------

    def balance(self, key_id: str, now_us: int) -> Balance:
        """Return a key's balance.

        Raises:
            KeyNotFound: no account has this id.
        """
        with self._lock:
            return self._balance(key_id, now_us)

    def available(self, key_id: str) -> Picocredits | None:
        """Return what a key can still spend, whatever its budget is; None: it is unlimited."""
        with self._lock:
            account = self._accounts[key_id]
            return None if account.unlimited else Picocredits(account.posted - account.held)

    @property
    def holds_open(self) -> int:
        """How many holds did not end yet."""
        return len(self._open)

    def flows(self) -> FlowReading:
        """Return what was written since the start, and what prepaid keys can still spend."""
        with self._lock:
            accounts = list(self._accounts.values())
            reading = self._flows.read(left=0)
        left = sum(each.posted - each.held for each in accounts if not each.unlimited)
        return replace(reading, left=left)

    def held(self) -> Counter[str]:
        """Return what calls in flight reserve of each key's balance."""
        with self._lock:
            held: Counter[str] = Counter()
            for hold in self._open.values():
                held[hold.key_id] += hold.amount
            return held

    def require(self, purchase: Purchase, now_us: int) -> None:
        """Refuse a purchase that the key cannot pay for now.

        Raises:
            DailyBudgetExceeded: the day's budget does not cover it.
            InsufficientCredit: the balance does not cover it.
            InvalidRequest: the balance of an unlimited key would be below `-POSTED_MAX`, or more
                than `POSTED_MAX` would be spent on this day.
        """
        with self._lock:
            _require(self._balance(purchase.key_id, now_us), purchase, now_us)

    def hold(self, purchase: Purchase, now_us: int) -> Hold:
        """Reserve the price of a call, if `require` does not refuse it."""
        with self._lock:
            _require(self._balance(purchase.key_id, now_us), purchase, now_us)
            self._hold_id += 1
            hold = self._open[self._hold_id] = Hold(self._hold_id, purchase)
            self._accounts[hold.key_id].held += hold.amount
            return hold

    def begin_settling(self, hold: Hold) -> None:
        """Let nobody else end a hold, until its charge is committed or was given up.

        Raises:
            HoldNotOpen: it ended already, or is being settled.
        """
        with self._lock:
            self._require_open(hold)
            self._settling.add(hold.id)

    def give_up_settling(self, hold: Hold) -> None:
        """Let a hold be open again, whose charge is not in the books."""
        with self._lock:
            self._settling.discard(hold.id)

    def release(self, hold: Hold) -> None:
        """Give back what a hold reserves.

        Raises:
            HoldNotOpen: it ended already, or is being settled.
        """
        with self._lock:
            self._require_open(hold)
            self._end(hold.id)

    def _require_open(self, hold: Hold) -> None:
        # Not by its number alone: that of a process that ended was perhaps given again.
        if self._open.get(hold.id) != hold or hold.id in self._settling:
            raise HoldNotOpen(hold.id)

    def _end(self, hold_id: int) -> None:
        hold = self._open.pop(hold_id, None)
        if hold is not None:
            self._settling.discard(hold_id)
            self._accounts[hold.key_id].held -= hold.amount

    def _balance(self, key_id: str, now_us: int) -> Balance:
        account = self._accounts.get(key_id)
        if account is None:
            raise KeyNotFound(key_id)
        day = utc_day(now_us)
        if account.day != day:
            # Once a day for each key, and when the clock went back: no row says it but a sum does.
            with reading(self._path) as connection:
                account.spent = read_balance(connection, key_id, now_us).spent_today
            account.day = day
        return Balance(
            posted=Picocredits(account.posted),
            held=Picocredits(account.held),
            spent_today=Picocredits(account.spent),
            unlimited=bool(account.unlimited),
        )


def _nothing() -> None:
    """Take over nothing."""


def _last_account(connection: sqlite3.Connection) -> int:
    """Return the number of the account that was opened last; accounts are never removed."""
    [(rowid,)] = connection.execute("SELECT COALESCE(MAX(rowid), 0) FROM accounts")
    return int(rowid)


def _require(balance: Balance, purchase: Purchase, now_us: int) -> None:
    budget = purchase.daily_budget
    today = balance.spent_today + balance.held + purchase.amount
    if budget is not None and today > budget:
        raise DailyBudgetExceeded(retry_after_s=seconds_to_midnight(now_us))
    if not balance.unlimited and balance.available < purchase.amount:
        raise InsufficientCredit(
            required=credits_text(purchase.amount), available=credits_text(balance.available)
        )
    if balance.available - purchase.amount < -POSTED_MAX or today > POSTED_MAX:
        raise InvalidRequest(
            f"this key has spent {credits_text(POSTED_MAX)} credits, all that one key's account "
            "can hold; the operator mints another key, or adds credit to this one"
            if today <= POSTED_MAX
            else f"a key spends at most {credits_text(POSTED_MAX)} credits a day"
        )
