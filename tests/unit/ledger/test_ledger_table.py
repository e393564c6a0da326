"""The ledger's rules as stories: one line, one step, and what must come of it.

key A [unlimited] [budget N]        a key with an empty account grant A N -> ok
add picocredits hold H A N -> ok                    reserve; or `insufficient AVAILABLE`, or
`over_budget` require A N -> ok                   what `hold` would say, without reserving settle H
-> ok                      charge; or `not_open` deliver H                           its answer was
handed over refund H -> ok                      give the charge back; or `delivered`, or `refunded`
before release H -> ok                     give back; or `not_open` reprice N -> version V
what each unit costs from now on; a hold is of `units` units balance A posted N held N today N   any
of the three clock +1d                           also s, h; `-` steps back crash -> refunded M
the process is killed and a new one starts
"""

import dataclasses
import re
import shutil
import sqlite3
from contextlib import ExitStack

import pytest

from appliance.accounts.key import Key, KeyLimits
from appliance.core.clock import MICROSECONDS_PER_DAY, seconds_to_midnight
from appliance.core.errors import (
    ApplianceError,
    DailyBudgetExceeded,
    HoldNotOpen,
    InsufficientCredit,
    InvalidRequest,
    KeyNotFound,
    StoreFailed,
)
from appliance.core.limits import Limits
from appliance.core.units import credits_of, picocredits
from appliance.ledger import audit, books, delivery_acks, ledger, prices, transfer
from appliance.ledger.books import open_books
from appliance.ledger.entry import Hold, Purchase
from appliance.pricing.tariff import Tariff
from appliance.store.datadir import DataDir
from tests.appliance import HandClock
from tests.money.audit import problems

NOON = 20_000 * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2
MAX = ledger.POSTED_MAX

SCENARIOS = {
    "a hold reserves and settling charges exactly once": """
        key A
        grant A 100 -> ok
        hold H1 A 30 -> ok
        balance A posted 100 held 30
        hold H2 A 80 -> insufficient 70
        settle H1 -> ok
        settle H1 -> not_open
        release H1 -> not_open
        balance A posted 70 held 0 today 30
    """,
    "a released hold costs nothing, once": """
        key A
        grant A 100 -> ok
        hold H1 A 100 -> ok
        hold H2 A 1 -> insufficient 0
        release H1 -> ok
        release H1 -> not_open
        settle H1 -> not_open
        balance A posted 100 held 0 today 0
        hold H2 A 100 -> ok
    """,
    "the last picocredit can be spent and not one more": """
        key A
        grant A 2 -> ok
        hold H1 A 1 -> ok
        hold H2 A 1 -> ok
        hold H3 A 1 -> insufficient 0
        hold H0 A 0 -> ok
        settle H2 -> ok
        settle H1 -> ok
        settle H0 -> ok
        balance A posted 0 held 0 today 2
        hold H3 A 1 -> insufficient 0
    """,
    "an account without credit serves only what is free": """
        key A
        hold H1 A 1 -> insufficient 0
        hold H2 A 0 -> ok
        settle H2 -> ok
        balance A posted 0 held 0 today 0
    """,
    "many holds are reserved side by side": """
        key A
        grant A 100 -> ok
        hold H1 A 40 -> ok
        hold H2 A 40 -> ok
        hold H3 A 40 -> insufficient 20
        release H1 -> ok
        hold H3 A 40 -> ok
        settle H3 -> ok
        settle H2 -> ok
        balance A posted 20 held 0
    """,
    "keys have accounts of their own": """
        key A
        key B
        grant A 10 -> ok
        hold H1 B 1 -> insufficient 0
        hold H2 A 10 -> ok
        grant B 5 -> ok
        hold H3 B 5 -> ok
        settle H2 -> ok
        balance A posted 0 held 0
        balance B posted 5 held 5
    """,
    "credits added while a call runs count at once": """
        key A
        grant A 10 -> ok
        hold H1 A 10 -> ok
        hold H2 A 10 -> insufficient 0
        grant A 10 -> ok
        hold H2 A 10 -> ok
        settle H1 -> ok
        settle H2 -> ok
        balance A posted 0 held 0 today 20
    """,
    "asking whether a call could be paid reserves nothing": """
        key A
        grant A 10 -> ok
        require A 10 -> ok
        require A 10 -> ok
        require A 11 -> insufficient 10
        balance A posted 10 held 0
    """,
    "an unlimited key is metered and goes below zero": """
        key A unlimited
        hold H1 A 1000 -> ok
        balance A posted 0 held 1000
        settle H1 -> ok
        balance A posted -1000 held 0 today 1000
        grant A 400 -> ok
        balance A posted -600 held 0
        hold H2 A 1000 -> ok
        release H2 -> ok
        balance A posted -600 held 0 today 1000
    """,
    "a daily budget counts what is spent and what is held": """
        key A budget 50
        grant A 1000 -> ok
        hold H1 A 30 -> ok
        hold H2 A 21 -> over_budget
        hold H3 A 20 -> ok
        hold H4 A 1 -> over_budget
        release H3 -> ok
        settle H1 -> ok
        hold H4 A 20 -> ok
        require A 1 -> over_budget
        settle H4 -> ok
        balance A posted 950 held 0 today 50
        hold H5 A 1 -> over_budget
        hold H6 A 0 -> ok
    """,
    "a daily budget renews at midnight and saves nothing up": """
        key A budget 50
        grant A 1000 -> ok
        hold H1 A 50 -> ok
        settle H1 -> ok
        clock +11h
        hold H2 A 1 -> over_budget
        clock +1h
        balance A posted 950 held 0 today 0
        hold H2 A 51 -> over_budget
        hold H3 A 50 -> ok
        settle H3 -> ok
        clock +10d
        hold H4 A 51 -> over_budget
        hold H5 A 50 -> ok
    """,
    "a call over midnight is charged to the day on which it ends": """
        key A budget 50
        grant A 1000 -> ok
        hold H1 A 10 -> ok
        settle H1 -> ok
        hold H2 A 40 -> ok
        clock +12h
        balance A posted 990 held 40 today 0
        hold H3 A 20 -> over_budget
        hold H3 A 10 -> ok
        settle H2 -> ok
        balance A posted 950 held 10 today 40
        release H3 -> ok
        hold H4 A 11 -> over_budget
        hold H5 A 10 -> ok
    """,
    "an unlimited key keeps to its daily budget": """
        key A unlimited budget 50
        hold H1 A 50 -> ok
        settle H1 -> ok
        hold H2 A 1 -> over_budget
        clock +1d
        hold H2 A 1 -> ok
    """,
    "a budget of nothing allows only what is free": """
        key A budget 0
        grant A 10 -> ok
        hold H1 A 1 -> over_budget
        hold H2 A 0 -> ok
    """,
    "an empty day's budget is said before an empty balance": """
        key A budget 5
        hold H1 A 6 -> over_budget
        hold H1 A 5 -> insufficient 0
    """,
    "a clock that steps back moves no money": """
        key A
        grant A 100 -> ok
        hold H1 A 10 -> ok
        clock -400d
        settle H1 -> ok
        hold H2 A 20 -> ok
        clock +800d
        settle H2 -> ok
        settle H1 -> not_open
        balance A posted 70 held 0 today 20
    """,
    "a crash gives back every open hold and every charge that was not delivered": """
        key A
        key B unlimited
        grant A 100 -> ok
        hold H1 A 10 -> ok
        hold H2 A 20 -> ok
        hold H3 A 30 -> ok
        hold H4 B 7 -> ok
        settle H1 -> ok
        deliver H1
        release H2 -> ok
        crash -> refunded 0
        balance A posted 90 held 0 today 10
        balance B posted 0 held 0
        settle H3 -> not_open
        release H4 -> not_open
        settle H1 -> not_open
        hold H5 A 90 -> ok
        settle H5 -> ok
        balance A posted 0 held 0 today 100
        crash -> refunded 1
        balance A posted 90 held 0 today 10
        crash -> refunded 0
        settle H5 -> not_open
        hold H6 A 90 -> ok
        settle H6 -> ok
        deliver H6
        crash -> refunded 0
        balance A posted 0 held 0 today 100
    """,
    "a charge is refunded once, and only while it is undelivered": """
        key A
        grant A 100 -> ok
        hold H1 A 40 -> ok
        settle H1 -> ok
        refund H1 -> ok
        refund H1 -> delivered
        balance A posted 100 held 0 today 0
        hold H2 A 60 -> ok
        settle H2 -> ok
        deliver H2
        refund H2 -> delivered
        deliver H1
        balance A posted 40 held 0 today 60
    """,
    "what was charged yesterday is refunded without renewing today's budget": """
        key A budget 50
        grant A 1000 -> ok
        hold H1 A 40 -> ok
        settle H1 -> ok
        clock +1d
        hold H2 A 50 -> ok
        settle H2 -> ok
        refund H1 -> ok
        balance A posted 950 held 0 today 50
        hold H3 A 1 -> over_budget
        refund H2 -> ok
        balance A posted 1000 held 0 today 0
        hold H3 A 50 -> ok
    """,
    "a price that changes is for new calls only": """
        key A
        grant A 100 -> ok
        reprice 3 -> version 1
        reprice 3 -> version 1
        hold H1 A 30 -> ok
        reprice 5 -> version 2
        settle H1 -> ok
        balance A posted 70 held 0 today 30
        hold H2 A 50 -> ok
        reprice 3 -> version 3
        settle H2 -> ok
        balance A posted 20 held 0 today 80
    """,
    "a key that nobody made has no account": """
        grant A 1 -> no_key
        hold H1 A 1 -> no_key
        require A 1 -> no_key
        balance A no_key
    """,
    "an account never holds more than the books can carry": f"""
        key A
        grant A {MAX} -> ok
        grant A 1 -> refused
        balance A posted {MAX} held 0
        hold H1 A 1 -> ok
        settle H1 -> ok
        grant A 1 -> ok
        balance A posted {MAX} held 0
    """,
}


def tariff(each):
    """Return a price list that asks so many picocredits a token."""
    price = credits_of(each * 1_000_000)
    return Tariff("embeddings", realtime=price, batch=price)


class Story:
    """Runs the lines of one scenario against a real store."""

    def __init__(self, path):
        self.path = path
        self.clock = HandClock(NOON)
        self.holds = {}
        self.budgets = {}
        self.charges = {}
        self.each, self.price = 1, None
        self.crashes = 0
        self.open()

    def open(self):
        self.stack = ExitStack()
        directory = DataDir(self.path / f"run-{self.crashes}")
        self.stack.enter_context(directory.locked())
        self.directory = directory
        self.books = self.stack.enter_context(open_books(directory, self.clock, Limits()))

    def step(self, line):
        command, *words = line.partition("->")[0].split()
        return getattr(self, command)(*words)

    def call(self, operation):
        return self.said(lambda: self.books.writer.call(operation))

    def said(self, work):
        """Return what comes of it, or its refusal in the story's words."""
        try:
            return work()
        except InsufficientCredit as refusal:
            return f"insufficient {picocredits(refusal.available)}"
        except DailyBudgetExceeded as refusal:
            until_midnight = seconds_to_midnight(self.clock.wall)
            return "over_budget" if refusal.retry_after_s == until_midnight else str(refusal)
        except HoldNotOpen:
            return "not_open"
        except KeyNotFound:
            return "no_key"
        except InvalidRequest:
            return "refused"

    def key(self, name, *options):
        self.budgets[name] = int(options[-1]) if "budget" in options else None
        key = Key(
            id=name,
            name=name,
            digest=name.encode().ljust(32),
            hint="gr-…",
            unlimited="unlimited" in options,
            limits=KeyLimits(daily_budget=self.budgets[name]),
            created_us=0,
            expires_us=None,
            revoked_us=None,
        )
        self.call(books.mint(key, 0, self.clock.wall))
        return ""

    def grant(self, name, amount):
        return self.call(books.top_up(name, int(amount), self.clock.wall)) or "ok"

    def reprice(self, each):
        self.each = int(each)
        self.price = self.call(lambda c: prices.publish(c, "m", tariff(self.each), self.clock.wall))
        return f"version {self.price}"

    def purchase(self, hold, name, amount):
        if self.price is None:
            self.reprice("1")
        return Purchase(
            key_id=name,
            request_id=f"req_{hold}",
            model="m",
            tier="realtime",
            units=int(amount) // self.each,
            each=self.each,
            price=self.price,
            daily_budget=self.budgets.get(name),
        )

    def hold(self, hold, name, amount):
        bought = self.purchase(hold, name, amount)
        end = self.said(lambda: self.books.balances.hold(bought, self.clock.wall))
        if isinstance(end, Hold):
            self.holds[hold] = end
            return "ok"
        return end

    def require(self, name, amount):
        bought = self.purchase("none", name, amount)
        return self.said(lambda: self.books.balances.require(bought, self.clock.wall)) or "ok"

    def settle(self, hold):
        wanted = self.holds[hold]
        end = self.said(lambda: self.books.balances.begin_settling(wanted))
        if end is not None:
            return end
        end = self.call(lambda c: ledger.settle_hold(c, wanted, self.clock.wall))
        assert end.amount == wanted.amount
        self.charges[hold] = end.seq
        return "ok"

    def deliver(self, hold):
        self.call(lambda c: delivery_acks.mark(c, [self.charges[hold]]))
        return ""

    def refund(self, hold):
        seq = self.charges[hold]
        was_one = self.call(lambda c: ledger.refund(c, seq, "refund", self.clock.wall))
        return "ok" if was_one else "delivered"

    def release(self, hold):
        wanted = self.holds[hold]
        return self.said(lambda: self.books.balances.release(wanted)) or "ok"

    def balance(self, name, *said):
        found = self.said(lambda: self.books.balances.balance(name, self.clock.wall))
        if isinstance(found, str):
            assert said == (found,)
            return ""
        facts = {"posted": found.posted, "held": found.held, "today": found.spent_today}
        wanted = dict(zip(said[::2], map(int, said[1::2]), strict=True))
        assert {name: facts[name] for name in wanted} == wanted
        assert found.available == found.posted - found.held
        booked = self.call(lambda c: transfer.read_balance(c, name, self.clock.wall))
        assert booked == dataclasses.replace(found, held=0)
        return ""

    def clock_(self, step):
        number, unit = re.fullmatch(r"([+-]\d+)([shd])", step).groups()
        self.clock.advance(int(number) * {"s": 1, "h": 3_600, "d": 86_400}[unit])
        return ""

    def crash(self):
        """Copy what a killed process would leave on the disk, and start on the copy."""
        self.crashes += 1
        shutil.copytree(self.directory.path, self.path / f"run-{self.crashes}")
        self.stack.close()
        self.open()
        found = self.books.recovered
        return f"refunded {found.refunded}"


@pytest.mark.parametrize("text", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_the_ledger_keeps_to_the_story(tmp_path, text):
    story = Story(tmp_path)
    try:
        for line in text.strip().splitlines():
            step = line.strip().replace("clock ", "clock_ ")
            assert story.step(step) == step.partition("->")[2].strip(), line
            found = story.books.writer.call(lambda c: problems(c) + audit.problems(c))
            assert found == [], line
    finally:
        story.stack.close()


# -- promises of the database itself ----------------------------------------------------------


@pytest.fixture
def story(tmp_path):
    made = Story(tmp_path)
    made.key("A")
    made.key("U", "unlimited")
    made.grant("A", 100)
    made.hold("H1", "A", 10)
    made.settle("H1")
    made.hold("H2", "A", 20)
    yield made
    made.stack.close()


TABLES = ("accounts", "transfers", "prices", "undelivered", "repeats", "usage_days")


def rows(story):
    return story.books.writer.call(
        lambda c: [c.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]
    )


def transfer_row(**columns):
    """Return SQL that appends a transfer; what is not given is that of a lawful grant."""
    row = {
        "seq": "99",
        "kind": "'grant'",
        "debit": "'issued'",
        "credit": "'A'",
        "amount": "10",
        "at_us": "0",
        "hash": "zeroblob(32)",
        **columns,
    }
    return f"INTO transfers ({', '.join(row)}) VALUES ({', '.join(row.values())})"


def charge_row(**columns):
    lawful = {
        "kind": "'charge'",
        "debit": "'A'",
        "credit": "'revenue'",
        "hold_id": "77",
        "tier": "'batch'",
        "units": "10",
        "model": "'m'",
        "price": "1",
        "each": "1",
    }
    return "INSERT " + transfer_row(**{**lawful, **columns})


def grant_row(**columns):
    return "INSERT " + transfer_row(**columns)


def refund_row(**columns):
    lawful = {"kind": "'refund'", "debit": "'revenue'", "credit": "'A'", "refunds": "2"}
    return "INSERT " + transfer_row(**{**lawful, **columns})


FORBIDDEN = {
    "a transfer cannot be changed": ("UPDATE transfers SET amount = 0", "immutable"),
    "nor back-dated": ("UPDATE transfers SET at_us = 0 WHERE seq = 1", "immutable"),
    "nor turned over": (
        "UPDATE transfers SET debit = credit, credit = debit, request_id = NULL",
        "immutable",
    ),
    "nor chained anew": ("UPDATE transfers SET hash = zeroblob(32)", "immutable"),
    "nor renumbered": ("UPDATE transfers SET seq = 9 WHERE seq = 1", "immutable"),
    "nor given another request": ("UPDATE transfers SET request_id = 'x'", "immutable"),
    "nor replaced": ("INSERT OR REPLACE " + transfer_row(seq="1"), "immutable"),
    "nor replaced by another charge for its hold": (
        charge_row(hold_id="1").replace("INSERT", "INSERT OR REPLACE"),
        "immutable",
    ),
    "a transfer cannot be removed": ("DELETE FROM transfers WHERE seq = 1", "immutable"),
    "nor all of them": ("DELETE FROM transfers", "immutable"),
    "a hold is charged once": (charge_row(hold_id="1"), "UNIQUE"),
    "a charge has a hold": (charge_row(hold_id="NULL"), "CHECK"),
    "a charge says what was bought": (charge_row(units="NULL", amount="0"), "CHECK"),
    "of which model": (charge_row(model="NULL"), "CHECK"),
    "in which tier": (charge_row(tier="NULL"), "CHECK"),
    "a charge's tier is known": (charge_row(tier="'slow'"), "CHECK"),
    "a charge is its units times its price": (charge_row(amount="11"), "CHECK"),
    "a charge's price is listed": (charge_row(price="9"), "FOREIGN KEY"),
    "a price and what each costs go together": (charge_row(price="NULL"), "CHECK"),
    "a charge goes to revenue": (charge_row(credit="'issued'"), "CHECK"),
    "a grant has no hold": (grant_row(hold_id="7"), "CHECK"),
    "a grant was issued": (grant_row(debit="'revenue'"), "CHECK"),
    "a transfer is of a known kind": (grant_row(kind="'gift'"), "CHECK"),
    "a transfer is never negative": (grant_row(amount="-1"), "CHECK"),
    "a transfer has two sides": (grant_row(credit="'issued'"), "CHECK"),
    "both of them accounts": (grant_row(credit="'nobody'"), "FOREIGN KEY"),
    "a transfer is chained": (grant_row(hash="zeroblob(31)"), "CHECK"),
    "a refund names its charge": (refund_row(refunds="NULL"), "CHECK"),
    "which exists": (refund_row(refunds="55"), "FOREIGN KEY"),
    "a refund comes out of revenue": (refund_row(debit="'issued'"), "CHECK"),
    "only a refund gives back": (grant_row(refunds="2"), "CHECK"),
    "a charge is given back once": (
        refund_row(seq="98") + ", " + refund_row().partition("VALUES")[2],
        "UNIQUE",
    ),
    "decimal text is no amount": (grant_row(amount="'1.5'"), "cannot store REAL"),
    "text is no amount": (grant_row(amount="'ten'"), "cannot store TEXT"),
    "a float is no amount": (grant_row(amount="0.5"), "cannot store REAL"),
    "a blob is no amount": (grant_row(amount="x'31'"), "cannot store BLOB"),
    "nothing is no amount": (grant_row(amount="NULL"), "NOT NULL"),
    "a float is no balance": ("UPDATE accounts SET posted = 1.5", "cannot store REAL"),
    "text is no balance": ("UPDATE accounts SET posted = 'all'", "cannot store TEXT"),
    "more than 64 bits are no balance": (
        "UPDATE accounts SET posted = 9223372036854775807 + 1",
        "cannot store REAL",
    ),
    "a price does not change": ("UPDATE prices SET realtime = 0", "immutable"),
    "nor go": ("DELETE FROM prices", "immutable"),
    "a price is never negative": (
        "INSERT INTO prices VALUES (9, 'm', 'token', -1, 0, 0)",
        "CHECK",
    ),
    "a price is for a token or a document": (
        "INSERT INTO prices VALUES (9, 'm', 'call', 1, 0, 0)",
        "CHECK",
    ),
    "what is undelivered is a transfer": (
        "INSERT INTO undelivered (seq) VALUES (55)",
        "FOREIGN KEY",
    ),
    "no prepaid balance below zero": (
        "UPDATE accounts SET posted = -1 WHERE key_id = 'A'",
        "CHECK",
    ),
    "never less than nothing is spent": ("UPDATE accounts SET spent_today = -1", "CHECK"),
    "an account's key exists": (
        "INSERT INTO accounts (id, key_id, kind) VALUES ('ghost', 'ghost', 'prepaid')",
        "FOREIGN KEY",
    ),
    "only the system's accounts have no key": (
        "INSERT INTO accounts (id, kind) VALUES ('ghost', 'prepaid')",
        "CHECK",
    ),
    "an account is called as its key": (
        "INSERT INTO accounts (id, key_id, kind) VALUES ('B', 'A', 'prepaid')",
        "CHECK",
    ),
    "a key with an account stays": ("DELETE FROM keys WHERE id = 'A'", "FOREIGN KEY"),
    "a key has one account": (
        "INSERT INTO accounts (id, key_id, kind) VALUES ('A', 'A', 'unlimited')",
        "UNIQUE",
    ),
    "no more is refunded than was charged": (
        "UPDATE usage_days SET refunded = amount + 1",
        "CHECK",
    ),
}


@pytest.mark.parametrize(("sql", "reason"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_the_database_itself_refuses_what_must_never_happen(story, sql, reason):
    before = rows(story)
    with pytest.raises((sqlite3.IntegrityError, StoreFailed), match=reason):
        story.books.writer.call(lambda c: c.execute(sql))
    assert rows(story) == before


def test_an_unlimited_account_may_stand_below_zero(story):
    assert story.hold("H9", "U", 5) == "ok"
    assert story.settle("H9") == "ok"
    story.balance("U", "posted", "-5", "held", "0")


def test_what_the_database_refuses_is_wrong_in_one_thing_only(story):
    """The rows above are lawful but for what their names say."""
    before = story.call(lambda c: c.execute("SELECT COUNT(*) FROM transfers").fetchone()[0])
    for number, row in enumerate((grant_row, charge_row, refund_row)):
        story.books.writer.call(lambda c, row=row, n=number: c.execute(row(seq=str(90 + n))))
    after = story.call(lambda c: c.execute("SELECT COUNT(*) FROM transfers").fetchone()[0])
    assert after == before + 3


def test_a_charge_remembers_what_was_bought(story):
    [charge] = story.books.writer.call(
        lambda c: c.execute(
            "SELECT debit, credit, kind, amount, hold_id, request_id, model, tier, each, units,"
            " price, at_us FROM transfers WHERE kind = 'charge'"
        ).fetchall()
    )
    assert charge == (
        "A",
        "revenue",
        "charge",
        10,
        1,
        "req_H1",
        "m",
        "realtime",
        1,
        10,
        1,
        NOON,
    )


def test_a_request_id_can_be_forgotten_and_nothing_else(story):
    before = rows(story)
    after, parts = 0, 0
    while after is not None:
        after = story.call(lambda c, after=after: ledger.forget(c, "A", after=after, rows_max=1))
        parts += 1
    assert parts == 1 + story.call(
        lambda c: c.execute("SELECT COUNT(*) FROM transfers WHERE debit = 'A'").fetchone()[0]
    )
    found = story.call(lambda c: c.execute("SELECT request_id FROM transfers").fetchall())
    assert set(found) == {(None,)}
    assert story.call(problems) == []
    accounts, transfers, *rest = rows(story)
    assert [accounts, *rest] == [before[0], *before[2:]]
    assert [row[:13] for row in transfers] == [row[:13] for row in before[1]]


def test_minting_writes_the_key_its_account_and_its_credits_or_nothing(story):
    before = rows(story)
    key = Key(
        id="B",
        name="B",
        digest=b"B" * 32,
        hint="h",
        unlimited=False,
        limits=KeyLimits(),
        created_us=0,
        expires_us=None,
        revoked_us=None,
    )
    with pytest.raises(InvalidRequest):
        story.books.writer.call(books.mint(key, MAX + 1, NOON))
    assert rows(story) == before
    assert story.call(lambda c: c.execute("SELECT id FROM keys").fetchall()) == [("A",), ("U",)]
    story.books.writer.call(books.mint(key, 7, NOON))
    story.balance("B", "posted", "7", "held", "0")
    one = story.call(lambda c: transfer.read_balance(c, "B", NOON))
    assert (one.posted, one.unlimited) == (7, False)


def test_a_hold_is_settled_by_one_at_a_time_and_is_open_again_if_its_charge_fails(story):
    hold, balances = story.holds["H2"], story.books.balances
    assert (balances.available("A"), balances.available("U")) == (70, None)
    balances.begin_settling(hold)
    assert story.settle("H2") == "not_open"
    assert story.release("H2") == "not_open"
    story.balance("A", "posted", "90", "held", "20")
    balances.give_up_settling(hold)
    assert story.settle("H2") == "ok"
    story.balance("A", "posted", "70", "held", "0")


def test_an_operation_that_is_undone_changes_no_balance_in_memory(story):
    def broken(connection):
        ledger.grant(connection, "A", 50, NOON)
        ledger.settle_hold(connection, story.holds["H2"], NOON)
        _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        story.books.writer.call(broken)
    story.balance("A", "posted", "90", "held", "20")


def test_a_commit_that_fails_changes_no_balance_in_memory(story, monkeypatch):
    connection = story.books.writer._connection

    class Failing:
        """The connection, but for a commit."""

        def execute(self, sql, *values):
            if sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return connection.execute(sql, *values)

        def __getattr__(self, name):
            return getattr(connection, name)

    monkeypatch.setattr(story.books.writer, "_connection", Failing())
    with pytest.raises(ApplianceError):
        story.books.writer.call(books.top_up("A", 50, NOON))
    assert story.books.balances.balance("A", NOON).posted == 90
