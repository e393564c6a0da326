"""A store of the first version becomes double entry without a credit more or less."""

import sqlite3
from contextlib import closing

from appliance.core.limits import Limits
from appliance.ledger import prices
from appliance.ledger.books import open_books
from appliance.ledger.schema import MIGRATIONS
from appliance.store.database import connect
from appliance.store.datadir import DataDir
from tests.appliance import HandClock
from tests.money.audit import problems
from tests.unit.ledger.test_audit import NOON, TARIFF, purchase

FIRST = """
    INSERT INTO keys (id, name, digest, hint, unlimited, created_us)
        VALUES ('A', 'a', randomblob(32), 'h', 0, 0), ('U', 'u', randomblob(32), 'h', 1, 0);
    INSERT INTO accounts VALUES ('A', 0, 70, 20, 20000, 30), ('U', 1, -5, 0, 20000, 5);
    INSERT INTO holds VALUES
        (1, 'A', 30, 'settled', 'req_1', 'm', 'batch', 3, 1728000000000000, 1728000000000001),
        (2, 'U', 5, 'settled', 'req_2', 'm', 'realtime', 1, 1728000000000002, 1728000000000003),
        (3, 'A', 9, 'released', 'req_3', 'm', 'realtime', 1, 1, 2),
        (9, 'A', 20, 'open', 'req_4', 'm', 'realtime', 1, 3, NULL);
    INSERT INTO entries (key_id, kind, amount, hold_id, request_id, model, tier, units, at_us) VALUES
        ('A', 'grant', 100, NULL, NULL, NULL, NULL, NULL, 1727990000000000),
        ('A', 'charge', 30, 1, 'req_1', 'm', 'batch', 3, 1728000000000001),
        ('U', 'charge', 5, 2, 'req_2', 'm', 'realtime', 1, 1728000000000003);
"""


def test_the_first_books_are_written_again_as_transfers(tmp_path):
    directory = DataDir(tmp_path / "data")
    directory.create()
    with closing(connect(directory.database, MIGRATIONS[:1])) as connection:
        connection.executescript(FIRST)
    with directory.locked(), open_books(directory, HandClock(NOON), Limits()) as opened:
        call = opened.writer.call
        assert call(problems) == []
        assert call(
            lambda c: c.execute("SELECT id, kind, posted, spent_today FROM accounts").fetchall()
        ) == [
            ("issued", "system", -100, 0),
            ("revenue", "system", 35, 0),
            ("A", "prepaid", 70, 30),
            ("U", "unlimited", -5, 5),
        ]
        assert call(
            lambda c: c.execute(
                "SELECT kind, debit, credit, amount, request_id FROM transfers"
            ).fetchall()
        ) == [
            ("grant", "issued", "A", 100, None),
            ("charge", "A", "revenue", 30, "req_1"),
            ("charge", "U", "revenue", 5, "req_2"),
        ]
        # What is delivered is not known of old charges, and they are not given back.
        assert opened.recovered.refunded == 0
        version = call(lambda c: prices.publish(c, "m", TARIFF, NOON))
        hold = opened.balances.hold(purchase(version, units=0), NOON)
        [(charged,)] = call(lambda c: c.execute("SELECT MAX(hold_id) FROM transfers").fetchall())
        assert hold.id == charged + 1  # no number is charged twice
    with closing(sqlite3.connect(directory.database)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
