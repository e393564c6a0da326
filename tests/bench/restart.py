"""How long a start takes over large books: the audit before listening, and the refunds.

    .venv/bin/python -m tests.bench.restart [--transfers 1000000] [--undelivered 10000] [--folder DIR]

Books of that size are written into DIR (a temporary folder unless it is given), closed as a kill
leaves them, and opened.
"""

import argparse
import sqlite3
import tempfile
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from appliance.accounts.key import Key, KeyLimits
from appliance.core.clock import SystemClock
from appliance.core.limits import Limits
from appliance.ledger import audit, books, delivery_acks, ledger, prices
from appliance.ledger.books import open_books
from appliance.ledger.entry import Hold, Purchase
from appliance.pricing.tariff import Tariff
from appliance.store.datadir import DataDir
from appliance.store.reader import open_read_only

TARIFF = Tariff("embeddings", realtime=Decimal(1), batch=Decimal(1))
AT_ONCE = 5_000
MEMBERS = 20


def fill(directory: DataDir, transfers: int, undelivered: int) -> None:
    """Write charges over three months, the last of them undelivered."""
    clock = SystemClock()
    first_us = clock.wall_us() - 90 * 86_400_000_000
    step_us = 90 * 86_400_000_000 // max(1, transfers)

    def purchase(number: int, price: int) -> Purchase:
        return Purchase(
            key_id=f"key_{number % MEMBERS}",
            request_id=f"req_{number:024x}",
            model="m",
            tier="realtime",
            units=1 + number % 500,
            each=TARIFF.each("realtime"),
            price=price,
            daily_budget=None,
        )

    def charge(connection: sqlite3.Connection, numbers: range, price: int) -> None:
        delivered = []
        for number in numbers:
            now_us = first_us + number * step_us
            hold = Hold(number + 1, purchase(number, price))
            seq = ledger.settle_hold(connection, hold, now_us).seq
            if number < transfers - undelivered:
                delivered.append(seq)
        delivery_acks.mark(connection, delivered)

    with directory.locked(), open_books(directory, clock, Limits()) as opened:
        for member in range(MEMBERS):
            key = Key(
                id=f"key_{member}",
                name=f"member {member}",
                digest=bytes([member]) * 32,
                hint="h",
                unlimited=False,
                limits=KeyLimits(),
                created_us=0,
                expires_us=None,
                revoked_us=None,
            )
            opened.writer.call(books.mint(key, 10**17, first_us))
        price = opened.writer.call(lambda c: prices.publish(c, "m", TARIFF, first_us))
        for begin in range(0, transfers, AT_ONCE):
            numbers = range(begin, min(begin + AT_ONCE, transfers))
            opened.writer.call(lambda c, n=numbers: charge(c, n, price), durable=False)


def timed(name: str, work) -> None:
    began = time.perf_counter()
    end = work()
    print(f"{name}: {time.perf_counter() - began:.2f} s {end}")  # noqa: T201 - for whoever measures


def measure(folder: Path, transfers: int, undelivered: int) -> None:
    directory = DataDir(folder / "data")
    timed("written", lambda: fill(directory, transfers, undelivered))
    print(f"{directory.database.stat().st_size / 2**20:.0f} MiB")  # noqa: T201

    def start() -> str:
        with directory.locked(), open_books(directory, SystemClock(), Limits()) as opened:
            return f"refunded {opened.recovered.refunded}"

    timed("the first start", start)
    timed("the next start", start)
    with closing(open_read_only(directory.database)) as reader:
        timed("quick_check", lambda: reader.execute("PRAGMA quick_check(1)").fetchone())
        timed("integrity_check", lambda: reader.execute("PRAGMA integrity_check(1)").fetchone())
        timed("audit at the start", lambda: audit.problems(reader, links=audit.LINKS_AT_START))
        timed("whole audit", lambda: audit.problems(reader))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transfers", type=int, default=1_000_000)
    parser.add_argument("--undelivered", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options.transfers, options.undelivered)


if __name__ == "__main__":
    main()
