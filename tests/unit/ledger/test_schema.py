"""Books of every version open: those of the version before are kept as the SQL that it wrote."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from appliance.core.limits import Limits
from appliance.core.units import PICOCREDITS_PER_CREDIT
from appliance.ledger import audit, books, schema
from appliance.ledger.books import open_books
from appliance.ledger.schema import MIGRATIONS
from appliance.store import database
from appliance.store.database import connect
from appliance.store.datadir import DataDir
from tests.appliance import HandClock
from tests.money.audit import problems as recomputed
from tests.unit.ledger.test_audit import TOMORROW, key

BEFORE = Path(__file__).with_name("books_of_m003.sql")
"""A prepaid key and an unlimited one, three charges of two days, a refund, three repeats."""
SUMS = (
    "SELECT day, account, model, tier, calls, units, amount, refunds, refunded FROM usage_days"
    " ORDER BY 1, 2"
)
"""All of a day's sums, but the tokens, which m010 adds."""
ACCOUNTS = "SELECT id, kind, key_id, posted, day, spent_today FROM accounts ORDER BY id"
"""All of an account, but what was held of it before m006."""
MILLION = 1_000_000 * PICOCREDITS_PER_CREDIT


def old_books(tmp_path):
    directory = DataDir(tmp_path / "data")
    directory.create()
    with closing(sqlite3.connect(directory.database, isolation_level=None)) as connection:
        connection.executescript(BEFORE.read_text())
        connection.execute("PRAGMA journal_mode = WAL")
    return directory


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("transfers", "prices", "keys")
        } | {
            "accounts": connection.execute(ACCOUNTS).fetchall(),
            "usage_days": connection.execute(SUMS).fetchall(),
        }


def test_books_of_the_version_before_open_with_every_row_and_take_the_new_rules(tmp_path):
    directory = old_books(tmp_path)
    before = rows(directory.database)
    assert len(before["transfers"]) == 5
    with directory.locked(), open_books(directory, HandClock(TOMORROW), Limits()) as opened:
        call = opened.writer.call
        assert rows(directory.database) == before
        assert call(recomputed) == []
        for number in range(7):
            # More than one issuing account can carry: the rule of m004.
            name = f"key_{number}"
            call(books.mint(key(name), 2 * MILLION, TOMORROW))
        issued = call(
            lambda c: c.execute("SELECT debit FROM transfers WHERE kind = 'grant'").fetchall()
        )
        assert {name for (name,) in issued} == {"issued", "issued-2"}
        assert call(recomputed) == []
        assert call(audit.problems) == []


def texts(path):
    with closing(sqlite3.connect(path)) as connection:
        return {
            name: " ".join(sql.replace('"', "").split())
            for name, sql in connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            )
        }


def test_an_sqlite_that_protects_its_schema_copies_the_rows(tmp_path, monkeypatch):
    directory = old_books(tmp_path)
    before = rows(directory.database)

    def refuses(*_):
        raise sqlite3.OperationalError("table sqlite_master may not be modified")

    monkeypatch.setattr(schema, "_replace_text", refuses)
    with directory.locked(), open_books(directory, HandClock(TOMORROW), Limits()) as opened:
        assert rows(directory.database) == before
        assert opened.writer.call(recomputed) == []
        assert opened.writer.call(audit.problems) == []
        assert opened.writer.call(lambda c: c.execute("PRAGMA foreign_key_check").fetchall()) == []
    connect(tmp_path / "new.db", MIGRATIONS).close()
    assert texts(directory.database) == texts(tmp_path / "new.db")


def test_the_tables_are_the_same_whether_books_are_old_or_new(tmp_path):
    directory = old_books(tmp_path)
    connect(directory.database, MIGRATIONS).close()
    connect(tmp_path / "new.db", MIGRATIONS).close()
    assert texts(directory.database) == texts(tmp_path / "new.db")


def test_a_copy_is_kept_of_what_is_brought_up_to_date_and_the_older_program_can_use_it(tmp_path):
    directory = old_books(tmp_path)
    before = rows(directory.database)
    with directory.locked(), open_books(directory, HandClock(TOMORROW), Limits()):
        pass
    copy = directory.path / "gigarouter.db.after-m003_credentials"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert rows(copy) == before
    connect(copy, MIGRATIONS[:3]).close()
    # Once: the next start finds nothing to do.
    names = sorted(path.name for path in directory.path.iterdir())
    with directory.locked(), open_books(directory, HandClock(TOMORROW), Limits()):
        pass
    assert sorted(path.name for path in directory.path.iterdir()) == names


def test_new_books_and_books_without_room_for_a_copy_have_none(tmp_path, monkeypatch, caplog):
    new = DataDir(tmp_path / "new")
    with new.locked(), open_books(new, HandClock(TOMORROW), Limits()):
        pass
    assert not list(new.path.glob("*.after-*"))
    directory = old_books(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(database.shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with directory.locked(), open_books(directory, HandClock(TOMORROW), Limits()) as opened:
        assert opened.writer.call(recomputed) == []
    assert not list(directory.path.glob("*.after-*"))
    assert "without a copy: the disk has no room" in caplog.text


def test_days_of_before_have_the_tokens_that_were_sold_and_none_of_documents(tmp_path):
    directory = old_books(tmp_path)
    with closing(sqlite3.connect(directory.database, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO prices (model, unit, realtime, batch, since_us)"
            " VALUES ('ranks', 'document', 1, 1, 0)"
        )
        connection.execute(
            "INSERT INTO usage_days (day, account, model, tier, calls, units, amount)"
            " VALUES (19999, 'A', 'ranks', 'realtime', 1, 4, 4)"
        )
        connection.execute("PRAGMA user_version = 0")
    connect(directory.database, MIGRATIONS).close()
    with closing(sqlite3.connect(directory.database)) as connection:
        found = connection.execute("SELECT model, units, tokens FROM usage_days ORDER BY day")
        assert found.fetchall() == [("ranks", 4, 0), ("m", 6, 6), ("m", 3, 3)]
