"""The ledger's rules as stories: one line, one step, and what must come of it.

key A [unlimited] [budget N]        a key with an empty account
grant A N -> ok                     add picocredits
hold H A N -> ok                    reserve; or `insufficient AVAILABLE`, or `over_budget`
require A N -> ok                   what `hold` would say, without reserving
settle H -> ok                      charge; or `not_open`
release H -> ok                     give back; or `not_open`
balance A posted N held N today N   any of the three
clock +1d                           also s, h; `-` steps back
crash -> recovered N                the process is killed and a new one starts
"""

import re
import shutil
import sqlite3
from contextlib import ExitStack

import pytest

from appliance.accounts.key import Key, KeyLimits
from appliance.core.clock import MICROSECONDS_PER_DAY, seconds_to_midnight
from appliance.core.errors import (
    DailyBudgetExceeded,
    HoldNotOpen,
    InsufficientCredit,
    InvalidRequest,
    KeyNotFound,
    StoreFailed,
)
from appliance.core.limits import Limits
from appliance.core.units import picocredits
from appliance.ledger import books, ledger
from appliance.ledger.books import open_books
from appliance.ledger.entry import Hold, Purchase
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
    "a crash gives back every open hold and nothing else": """
        key A
        key B unlimited
        grant A 100 -> ok
        hold H1 A 10 -> ok
        hold H2 A 20 -> ok
        hold H3 A 30 -> ok
        hold H4 B 7 -> ok
        settle H1 -> ok
        release H2 -> ok
        crash -> recovered 2
        balance A posted 90 held 0 today 10
        balance B posted 0 held 0
        settle H3 -> not_open
        release H4 -> not_open
        settle H1 -> not_open
        hold H5 A 90 -> ok
        settle H5 -> ok
        crash -> recovered 0
        crash -> recovered 0
        balance A posted 0 held 0 today 100
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


class Story:
    """Runs the lines of one scenario against a real store."""

    def __init__(self, path):
        self.path = path
        self.clock = HandClock(NOON)
        self.holds = {}
        self.budgets = {}
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
        try:
            return self.books.writer.call(operation)
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
            id=name, name=name, digest=name.encode().ljust(32), hint="gr-…",
            unlimited="unlimited" in options, limits=KeyLimits(daily_budget=self.budgets[name]),
            created_us=0, expires_us=None, revoked_us=None,
        )  # fmt: skip
        self.call(books.mint(key, 0, self.clock.wall))
        return ""

    def grant(self, name, amount):
        return self.call(books.top_up(name, int(amount), self.clock.wall)) or "ok"

    def purchase(self, hold, name, amount):
        return Purchase(
            key_id=name, request_id=f"req_{hold}", model="m", tier="realtime", units=1,
            amount=int(amount), daily_budget=self.budgets.get(name),
        )  # fmt: skip

    def hold(self, hold, name, amount):
        bought = self.purchase(hold, name, amount)
        end = self.call(lambda c: ledger.open_hold(c, bought, self.clock.wall))
        if isinstance(end, Hold):
            self.holds[hold] = end
            return "ok"
        return end

    def require(self, name, amount):
        bought = self.purchase("none", name, amount)
        return self.call(lambda c: ledger.require_funds(c, bought, self.clock.wall)) or "ok"

    def settle(self, hold):
        wanted = self.holds[hold]
        end = self.call(lambda c: ledger.settle_hold(c, wanted, self.clock.wall))
        return end if isinstance(end, str) else "ok"

    def release(self, hold):
        wanted = self.holds[hold]
        return self.call(lambda c: ledger.release_hold(c, wanted, self.clock.wall)) or "ok"

    def balance(self, name, *said):
        found = self.call(lambda c: ledger.read_balance(c, name, self.clock.wall))
        if isinstance(found, str):
            assert said == (found,)
            return ""
        facts = {"posted": found.posted, "held": found.held, "today": found.spent_today}
        wanted = dict(zip(said[::2], map(int, said[1::2]), strict=True))
        assert {name: facts[name] for name in wanted} == wanted
        assert found.available == found.posted - found.held
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
        return f"recovered {self.books.released}"


@pytest.mark.parametrize("text", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_the_ledger_keeps_to_the_story(tmp_path, text):
    story = Story(tmp_path)
    with_clock_steps_back = "clock -" in text
    try:
        for line in text.strip().splitlines():
            step = line.strip().replace("clock ", "clock_ ")
            assert story.step(step) == step.partition("->")[2].strip(), line
            found = story.books.writer.call(
                lambda c: problems(c, steady_clock=not with_clock_steps_back)
            )
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


def rows(story):
    tables = ("accounts", "holds", "entries")
    return story.books.writer.call(
        lambda c: [c.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
    )


ENTRY = "INSERT INTO entries (key_id, kind, amount, hold_id, at_us) VALUES"
REPLACE = "INSERT OR REPLACE INTO entries"
HOLD = "INSERT INTO holds (key_id, amount, state, request_id, model, tier, units, opened_us) VALUES"

FORBIDDEN = {
    "an entry cannot be changed": ("UPDATE entries SET amount = 0", "immutable"),
    "nor back-dated": ("UPDATE entries SET at_us = 0 WHERE seq = 1", "immutable"),
    "nor replaced": (
        f"{REPLACE} (seq, key_id, kind, amount, at_us) VALUES (1, 'A', 'grant', 999, 0)",
        "immutable",
    ),
    "nor replaced by another charge for its hold": (
        f"{REPLACE} (key_id, kind, amount, hold_id, at_us) VALUES ('A', 'charge', 1, 1, 0)",
        "immutable",
    ),
    "an entry cannot be removed": ("DELETE FROM entries WHERE seq = 1", "immutable"),
    "nor all of them": ("DELETE FROM entries", "immutable"),
    "a hold is charged once": (f"{ENTRY} ('A', 'charge', 10, 1, 0)", "UNIQUE"),
    "a charge has a hold": (f"{ENTRY} ('A', 'charge', 10, NULL, 0)", "CHECK"),
    "a charge's hold exists": (f"{ENTRY} ('A', 'charge', 10, 99, 0)", "FOREIGN KEY"),
    "a grant has no hold": (f"{ENTRY} ('A', 'grant', 10, 2, 0)", "CHECK"),
    "an entry is a grant or a charge": (f"{ENTRY} ('A', 'gift', 10, NULL, 0)", "CHECK"),
    "an entry is never negative": (f"{ENTRY} ('A', 'grant', -1, NULL, 0)", "CHECK"),
    "an entry has an account": (f"{ENTRY} ('nobody', 'grant', 1, NULL, 0)", "FOREIGN KEY"),
    "decimal text is no amount": (f"{ENTRY} ('A', 'grant', '1.5', NULL, 0)", "cannot store REAL"),
    "text is no amount": (f"{ENTRY} ('A', 'grant', 'ten', NULL, 0)", "cannot store TEXT"),
    "a float is no amount": (f"{ENTRY} ('A', 'grant', 0.5, NULL, 0)", "cannot store REAL"),
    "a blob is no amount": (f"{ENTRY} ('A', 'grant', x'31', NULL, 0)", "cannot store BLOB"),
    "nothing is no amount": (f"{ENTRY} ('A', 'grant', NULL, NULL, 0)", "NOT NULL"),
    "a float is no balance": ("UPDATE accounts SET posted = 1.5", "cannot store REAL"),
    "text is no balance": ("UPDATE accounts SET posted = 'all'", "cannot store TEXT"),
    "more than 64 bits are no balance": (
        "UPDATE accounts SET posted = 9223372036854775807 + 1", "cannot store REAL",
    ),
    "text is no hold": (f"{HOLD} ('A', 'x', 'open', 'r', 'm', 'batch', 1, 0)", "cannot store"),
    "a float is no hold": (f"{HOLD} ('A', .5, 'open', 'r', 'm', 'batch', 1, 0)", "cannot store"),
    "a hold is never negative": (f"{HOLD} ('A', -1, 'open', 'r', 'm', 'batch', 1, 0)", "CHECK"),
    "a hold's tier is known": (f"{HOLD} ('A', 1, 'open', 'r', 'm', 'slow', 1, 0)", "CHECK"),
    "a settled hold stays settled": (
        "UPDATE holds SET state = 'open', resolved_us = NULL WHERE id = 1", "resolves once",
    ),
    "a settled hold is not released": (
        "UPDATE holds SET state = 'released' WHERE id = 1", "resolves once",
    ),
    "a settled hold's amount stays": ("UPDATE holds SET amount = 1 WHERE id = 1", "resolves once"),
    "a resolved hold has its moment": ("UPDATE holds SET state = 'settled' WHERE id = 2", "CHECK"),
    "an open hold has no end": ("UPDATE holds SET resolved_us = 1 WHERE id = 2", "CHECK"),
    "a charged hold stays": ("DELETE FROM holds WHERE id = 1", "FOREIGN KEY"),
    "no prepaid balance below zero": (
        "UPDATE accounts SET posted = held - 1 WHERE key_id = 'A'", "CHECK",
    ),
    "nor by reserving": ("UPDATE accounts SET held = posted + 1 WHERE key_id = 'A'", "CHECK"),
    "never less than nothing is held": ("UPDATE accounts SET held = -1", "CHECK"),
    "an account's key exists": (
        "INSERT INTO accounts (key_id, unlimited) VALUES ('ghost', 0)", "FOREIGN KEY",
    ),
    "a key with an account stays": ("DELETE FROM keys WHERE id = 'A'", "FOREIGN KEY"),
    "a key has one account": ("INSERT INTO accounts (key_id, unlimited) VALUES ('A', 1)", "UNIQUE"),
}  # fmt: skip


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


def test_a_charge_remembers_what_was_bought(story):
    [charge] = story.books.writer.call(
        lambda c: c.execute(
            "SELECT key_id, kind, amount, hold_id, request_id, model, tier, units, at_us"
            " FROM entries WHERE kind = 'charge'"
        ).fetchall()
    )
    assert charge == ("A", "charge", 10, 1, "req_H1", "m", "realtime", 1, NOON)


def test_minting_writes_the_key_its_account_and_its_credits_or_nothing(story):
    before = rows(story)
    key = Key(
        id="B", name="B", digest=b"B" * 32, hint="h", unlimited=False, limits=KeyLimits(),
        created_us=0, expires_us=None, revoked_us=None,
    )  # fmt: skip
    with pytest.raises(InvalidRequest):
        story.books.writer.call(books.mint(key, MAX + 1, NOON))
    assert rows(story) == before
    assert story.call(lambda c: c.execute("SELECT id FROM keys").fetchall()) == [("A",), ("U",)]
    story.books.writer.call(books.mint(key, 7, NOON))
    story.balance("B", "posted", "7", "held", "0")
    [one] = story.books.writer.call(books.balances(["B"], NOON))
    assert (one.posted, one.unlimited) == (7, False)
