"""No query of a paid call walks through a table that grows: each is found by a hook and explained."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from appliance.core.errors import InsufficientCredit
from appliance.ledger import ledger
from appliance.store import reader
from appliance.wire.keys import ExpireOrder, RotateOrder, TopUpOrder
from tests.appliance import bench
from tests.server import EMBED

BODY = {"model": EMBED, "input": "a text"}
EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
NOT_A_TABLE = ("SCAN CONSTANT ROW", "SCAN json_each VIRTUAL TABLE", "SCAN sold")
"""Values of the statement itself, and the sums of one key's own rows."""


class Trace:
    """Every statement that any connection to the books runs, with its values in it."""

    def __init__(self, monkeypatch):
        self.statements = set()
        opened = reader.open_read_only

        def traced(path, **how):
            connection = opened(path, **how)
            connection.set_trace_callback(self.statements.add)
            return connection

        monkeypatch.setattr(reader, "open_read_only", traced)

    def follow(self, on):
        on.books.writer.call(lambda c: c.set_trace_callback(self.statements.add))
        self.statements.clear()

    def scans(self, path):
        """Return the plans that walk through a whole table, and how many statements were seen."""
        seen = [
            text for text in map(str.strip, self.statements) if text.upper().startswith(EXPLAINED)
        ]
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            plans = {
                (" ".join(text.split()), row[3])
                for text in seen
                for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")
                if row[3].startswith("SCAN") and not row[3].startswith(NOT_A_TABLE)
            }
        return sorted(plans), len(seen)


@pytest.fixture
def trace(monkeypatch):
    return Trace(monkeypatch)


def play(tmp_path, story):
    async def run():
        async with asyncio.timeout(60), bench(tmp_path / "data") as on:
            await story(on)

    asyncio.run(run())


def test_no_query_of_a_paid_call_scans_a_table(tmp_path, trace):
    async def story(on):
        minted = await on.mint(credit="1", daily_budget="0.5")
        header = {"authorization": f"Bearer {minted.key}"}
        poor = await on.key(credit="0")
        trace.follow(on)
        again = {**header, "idempotency-key": "once"}
        for headers, expected in ((header, 200), (again, 200), (again, 200), (poor, 402)):
            answer = await on.client.post("/v1/embeddings", json=BODY, headers=headers)
            assert answer.status_code == expected, answer.text
        on.clock.advance(86_400)
        answer = await on.client.post("/v1/embeddings", json=BODY, headers=header)
        assert answer.status_code == 200
        for path in ("/account", "/v1/key"):
            assert (await on.client.get(path, headers=header)).status_code == 200
        billing = on.appliance.pipeline._billing
        await billing.delivery_acks.close()
        # A call whose client leaves, before its charge and after it; one to a model that is cold.
        key = on.books.keyring.get(minted.id)
        version = next(iter(billing.prices._current.values()))[1]
        purchase = ledger.Purchase(key.id, "req", EMBED, "realtime", 3, 8, version, 10**12)
        billing.ledger.require(purchase)
        with pytest.raises(InsufficientCredit):
            billing.ledger.require(
                ledger.Purchase(key.id, "req", EMBED, "realtime", 10**6, 10**7, version, None)
            )
        billing.holds.release(billing.holds.open(purchase))
        charge = await billing.ledger.settle(billing.ledger.hold(purchase))
        await billing.ledger.refund(charge.seq)
        scans, seen = trace.scans(on.directory.database)
        assert seen > 25
        assert scans == []

    play(tmp_path, story)


def test_what_an_operator_does_with_one_key_scans_no_table_that_is_kept(tmp_path, trace):
    async def story(on):
        trace.follow(on)
        keys = on.appliance.admin.keys
        minted = await on.mint(credit="1")
        await keys.top_up(minted.id, TopUpOrder(credit="1"))
        await keys.rotate(minted.id, RotateOrder())
        await keys.expire(minted.id, ExpireOrder(expires="1d"))
        await keys.revoke(minted.id)
        await keys.forget(minted.id)
        scans, seen = trace.scans(on.directory.database)
        assert seen > 10
        # As many rows as there are answers on their way.
        assert {plan for _, plan in scans} <= {"SCAN undelivered"}

    play(tmp_path, story)


def test_a_list_of_keys_reads_each_account_once_and_no_other_table_in_full(tmp_path, trace):
    async def story(on):
        for _ in range(3):
            await on.mint(credit="1")
        trace.follow(on)
        await on.appliance.admin.keys.all()
        scans, seen = trace.scans(on.directory.database)
        assert seen == 1
        assert [plan for _, plan in scans] == ["SCAN accounts"]

    play(tmp_path, story)


def test_no_row_that_is_deleted_is_one_that_another_table_refers_to(tmp_path):
    """SQLite would look for the rows that refer to it, and its plans do not show that."""

    async def story(on):
        with closing(sqlite3.connect(on.directory.database)) as connection:
            tables = [
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            ]
            parents = {
                row[2]
                for table in tables
                for row in connection.execute(f"PRAGMA foreign_key_list({table})")
            }
        assert parents == {"accounts", "keys", "prices", "transfers"}
        assert parents.isdisjoint({"undelivered", "repeats", "credentials"})

    play(tmp_path, story)
