"""What a paid call, a list of keys, a start and the whole audit take over large books.

    .venv/bin/python -m tests.bench.large_books [--keys 100000] [--transfers 10000000] [--folder DIR]

The books are written in bulk, with a right hash chain, into DIR, and kept there for the next time
(without --folder: into a temporary folder). Nine of ten calls are of one key in a hundred, over
thirty days, as sales are spread.
"""

import argparse
import asyncio
import hashlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from appliance.core.clock import MICROSECONDS_PER_DAY
from appliance.ledger import audit, delivery_acks, ledger, prices, rollback_guard, transfer
from appliance.ledger.entry import Purchase
from appliance.ledger.schema import ISSUED, MIGRATIONS, REVENUE
from appliance.ledger.transfer import GENESIS, Transfer, chained
from appliance.pricing.tariff import Tariff
from appliance.store.database import connect
from appliance.store.datadir import DataDir
from appliance.store.reader import reading
from tests.appliance import HandClock, bench

TARIFF = Tariff("embeddings", realtime=Decimal(1), batch=Decimal(1))
MODEL, EACH = "m", TARIFF.each("realtime")
GRANTED = 80 * 10**12
"""Picocredits of each key; of 100,000 keys more than one issuing account holds."""
ISSUED_KEYS = transfer.POSTED_MAX // GRANTED
"""Keys whose grants one issuing account can carry."""
DAYS = 30
LAST_US = HandClock().wall_us()
FIRST_US = LAST_US - DAYS * MICROSECONDS_PER_DAY
SLOW_TO_BUILD = ("transfers_debit", "usage_days_account")
SUMS = f"""
    INSERT INTO usage_days (day, account, model, tier, calls, units, amount)
    SELECT at_us / {MICROSECONDS_PER_DAY}, debit, model, tier, COUNT(*), SUM(units), SUM(amount)
    FROM transfers WHERE kind = 'charge' GROUP BY 1, 2, 3, 4
"""


@dataclass(frozen=True)
class Figures:
    """Seconds, but of a paid call, whose unit is the millisecond."""

    start: float
    operations_ms: float
    """Of one call: settlement and delivery, in the writer without their commits."""
    commits_ms: float
    """The same with them."""
    beside_ms: float
    """The same while the keys are listed, without a pause, beside it."""
    balance_ms: float
    """One key's balance, as `GET /account` reads it."""
    list_s: float
    listed: int
    audit: float
    problems: int


def issuer(key: int) -> str:
    """Return the account that a key's grant comes from."""
    return ISSUED if key < ISSUED_KEYS else f"{ISSUED}-{key // ISSUED_KEYS + 1}"


def buyer(number: int, keys: int) -> int:
    """Return which key makes a call."""
    return number % keys if number % 10 == 0 else number % max(1, keys // 100)


def name(key: int) -> str:
    return f"key_{key:07d}"


class History:
    """Every transfer of the books in its order, and the balances that follow."""

    def __init__(self, keys: int, transfers: int) -> None:
        assert transfers >= keys
        self.keys, self.transfers = keys, transfers
        self.posted = dict.fromkeys(map(name, range(keys)), GRANTED)
        self.posted[REVENUE] = 0
        for key in range(keys):
            self.posted[issuer(key)] = self.posted.get(issuer(key), 0) - GRANTED
        self.last = GENESIS

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield the rows of the table `transfers`."""
        step_us = (LAST_US - FIRST_US) // max(1, self.transfers)
        for seq in range(1, self.transfers + 1):
            at_us = FIRST_US + seq * step_us
            if seq <= self.keys:
                key = seq - 1
                row = Transfer(seq, "grant", issuer(key), name(key), GRANTED, at_us)
            else:
                row = self._charge(seq, at_us)
            self.last = chained(self.last, row)
            yield (*row, None if row.hold_id is None else f"req_{seq}", self.last)

    def _charge(self, seq: int, at_us: int) -> Transfer:
        key, units = name(buyer(seq, self.keys)), 1 + seq % 500
        self.posted[key] -= units * EACH
        self.posted[REVENUE] += units * EACH
        return Transfer(
            seq,
            "charge",
            key,
            REVENUE,
            units * EACH,
            at_us,
            seq,
            None,
            1,
            "realtime",
            EACH,
            units,
            MODEL,
        )


def make(directory: DataDir, keys: int, transfers: int) -> float:
    """Write the books unless they are there; return the seconds that it took."""
    began = time.perf_counter()
    directory.create()
    mark = directory.path / f"made-{keys}-{transfers}"
    if mark.exists():
        return 0.0
    connect(directory.database, MIGRATIONS).close()
    with closing(sqlite3.connect(directory.database, isolation_level=None)) as connection:
        for pragma in ("synchronous = OFF", "journal_mode = MEMORY", "cache_size = -500000"):
            connection.execute(f"PRAGMA {pragma}").fetchone()
        _fill(connection, History(keys, transfers))
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        rollback_guard.write(directory.rollback_guard, connection, LAST_US)
    mark.touch()
    return time.perf_counter() - began


def _fill(connection: sqlite3.Connection, history: History) -> None:
    indexes = connection.execute(
        f"SELECT sql, name FROM sqlite_master WHERE name IN {SLOW_TO_BUILD}"
    ).fetchall()
    connection.execute("BEGIN")
    for _, index in indexes:
        connection.execute(f"DROP INDEX {index}")
    connection.executemany(
        "INSERT INTO keys (id, name, digest, hint, unlimited, created_us) VALUES (?, ?, ?, 'h', 0, ?)",
        (
            (name(key), f"member {key}", hashlib.sha256(name(key).encode()).digest(), key)
            for key in range(history.keys)
        ),
    )
    prices.publish(connection, MODEL, TARIFF, FIRST_US)
    connection.executemany(transfer.INSERT, history.rows())
    connection.execute("DELETE FROM accounts")
    connection.executemany(
        "INSERT INTO accounts (id, key_id, kind, posted) VALUES (?, ?, ?, ?)",
        (
            (account, account, "prepaid", posted)
            if account.startswith("key_")
            else (account, None, "system", posted)
            for account, posted in history.posted.items()
        ),
    )
    connection.execute(SUMS)
    for text, _ in indexes:
        connection.execute(text)
    connection.execute("COMMIT")


class PaidCall:
    """What one paid call asks of the writer, without its compute."""

    def __init__(self, on, key: str) -> None:
        self._writer, self._balances = on.books.writer, on.books.balances
        self._now_us = on.clock.wall_us()
        self._purchase = Purchase(key, "req", MODEL, "realtime", 27, EACH, 1, 10**15)
        self._inside = 0.0

    def _timed(self, operation):
        def run(connection):
            began = time.perf_counter()
            result = operation(connection)
            self._inside += time.perf_counter() - began
            return result

        return run

    def make(self) -> tuple[float, float]:
        """Make one; return its milliseconds in the operations, and with the commits."""
        self._inside, began = 0.0, time.perf_counter()
        call, now_us = self._writer.call, self._now_us
        hold = self._balances.hold(self._purchase, now_us)
        charge = call(self._timed(lambda c: ledger.settle_hold(c, hold, now_us)))
        call(self._timed(lambda c: delivery_acks.mark(c, [charge.seq])), durable=False)
        return self._inside * 1e3, (time.perf_counter() - began) * 1e3


async def measure(directory: DataDir, calls: int) -> Figures:
    """Open the books and time what is done with them."""
    began = time.perf_counter()
    async with bench(directory.path, preload=False) as on:
        start = time.perf_counter() - began
        paid = PaidCall(on, name(0))
        inside, whole = zip(*[paid.make() for _ in range(calls)], strict=True)
        billing = on.appliance.pipeline._billing
        balances = []
        for _ in range(50):
            began = time.perf_counter()
            billing.ledger.balance(name(1))
            balances.append((time.perf_counter() - began) * 1e3)
        began = time.perf_counter()
        listed = len((await on.appliance.admin.keys.all()).data)
        list_s = time.perf_counter() - began
        beside = await _beside(on, paid, calls)
        with reading(directory.database) as connection:
            began = time.perf_counter()
            problems = audit.problems(connection)
            audited = time.perf_counter() - began
    return Figures(
        start,
        statistics.median(inside),
        statistics.median(whole),
        statistics.median(beside),
        statistics.median(balances),
        list_s,
        listed,
        audited,
        len(problems),
    )


async def _beside(on, paid: PaidCall, calls: int) -> list[float]:
    listing = asyncio.create_task(_list_on(on))
    found = await asyncio.to_thread(lambda: [paid.make()[1] for _ in range(calls)])
    listing.cancel()
    await asyncio.gather(listing, return_exceptions=True)
    return found


async def _list_on(on) -> None:
    while True:
        await on.appliance.admin.keys.all()


def table(figures: Figures) -> str:
    """Return the figures as lines for a person."""
    return "\n".join(
        (
            f"start: {figures.start:.2f} s",
            (
                f"a paid call in the writer: {figures.operations_ms:.3f} ms, "
                f"with its commits {figures.commits_ms:.2f} ms, "
                f"while keys are listed {figures.beside_ms:.2f} ms (medians)"
            ),
            f"a balance: {figures.balance_ms:.2f} ms",
            f"list of {figures.listed:,} keys: {figures.list_s:.2f} s",
            f"whole audit: {figures.audit:.1f} s, {figures.problems} problems",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--transfers", type=int, default=10_000_000)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = DataDir(options.folder or Path(temporary) / "data")
        seconds = make(directory, options.keys, options.transfers)
        size = directory.database.stat().st_size
        print(f"written in {seconds:.0f} s, {size / 1e6:.0f} MB")  # noqa: T201 - for a person
        print(table(asyncio.run(measure(directory, options.calls))))  # noqa: T201


if __name__ == "__main__":
    main()
