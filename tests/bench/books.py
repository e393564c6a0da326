"""What the books cost a call, how many they take a second, and how long their questions take.

    .venv/bin/python -m tests.bench.books [--calls 5000] [--keys 20] [--folder DIR]

Through the whole pipeline with the fake engine, in this process; the database is on the disk of
DIR (a temporary folder unless it is given), and has so many other keys.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from appliance.accounts.held_bytes import HeldBytes
from appliance.call import Call
from appliance.core.limits import Limits
from appliance.ledger import audit, usage
from appliance.ledger.entry import Charge, Hold, Purchase
from appliance.shapes import openai
from appliance.store.reader import reading
from appliance.tasks.embed import EmbedTask
from tests.appliance import Bench, Connected, bench

EMBED = "sentence-transformers/all-MiniLM-L6-v2"
CLIENTS = 64


def task(number: int) -> EmbedTask:
    """Return a task with a text that no other call has: equal ones would be computed once."""
    body = {"model": EMBED, "input": f"text number {number}"}
    return openai.embed_task(json.dumps(body).encode(), Limits())


class Load:
    """Sends calls to a pipeline, with its books or without."""

    def __init__(self, on: Bench, key) -> None:
        self.on, self.key = on, key
        self.pipeline = on.appliance.pipeline
        self.number = 0
        self.held = HeldBytes(bytes_max=10**9, per_key_max=10**9)

    async def call(self) -> float:
        """Make one call; return its seconds."""
        self.number += 1
        held = self.held.of_call(self.key.id)
        call = Call(f"req_{self.number}", self.key, "realtime", 30, Connected(), held)
        began = time.perf_counter()
        answer = await self.pipeline.run(call, task(self.number))
        await self.pipeline.delivered(answer)
        held.release()
        return time.perf_counter() - began

    async def alone(self, calls: int) -> float:
        """Return the median seconds of calls one after the other."""
        return statistics.median([await self.call() for _ in range(calls)])

    async def together(self, calls: int) -> float:
        """Return calls a second of many clients."""

        async def client():
            for _ in range(calls // CLIENTS):
                await self.call()

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return calls // CLIENTS * CLIENTS / (time.perf_counter() - began)


class NoBooks:
    """Stands where holds do and writes nothing."""

    def __init__(self, charge: Charge) -> None:
        self._charge = charge

    def open(self, purchase) -> Hold:
        return Hold(0, purchase)

    async def settle(self, *_) -> Charge:
        return self._charge

    def release(self, *_) -> None:
        return


async def measure(folder: Path, calls: int, keys: int) -> None:
    async with bench(folder / "data") as on:
        on.books.writer.call(lambda connection: _many_keys(connection, keys))
        minted = await on.mint()
        load = Load(on, on.books.keyring.get(minted.id))
        await load.together(CLIENTS * 2)
        billing, added = load.pipeline._billing, []
        charge = await billing.holds.settle(billing.holds.open(await _purchase(load)), None)
        without = type(billing)(
            billing.ledger,
            NoBooks(charge),
            billing.prices,
            billing.idempotency,
            billing.delivery_acks,
        )
        for _ in range(5):
            load.pipeline._billing = without
            bare = await load.alone(calls // 20)
            load.pipeline._billing = billing
            added.append(((await load.alone(calls // 20)) - bare) * 1000)
        rates = [await load.together(calls) for _ in range(3)]
        await billing.delivery_acks.close()
        with reading(on.directory.database) as connection:
            began = time.perf_counter()
            found = audit.problems(connection)
            audited = time.perf_counter() - began
            [(transfers,)] = connection.execute("SELECT COUNT(*) FROM transfers").fetchall()
        connection = on.books.writer
        await connection.run(_many_days)
        with reading(on.directory.database) as connection:
            began = time.perf_counter()
            rows = usage.read(connection, by="day")
            asked = time.perf_counter() - began
    _say(f"the books add {statistics.median(added):.2f} ms to a call alone (median of 5 pairs)")
    _say(f"{statistics.median(rates):.0f} settled calls a second with {CLIENTS} clients")
    _say(f"the whole audit of {transfers} transfers: {audited:.2f} s, {len(found)} problems")
    _say(f"usage by day over {sum(row.calls for row in rows):,} calls: {asked:.3f} s")


def _many_keys(connection, keys: int) -> None:
    names = [f"key_{number:06d}" for number in range(keys)]
    connection.executemany(
        "INSERT INTO keys (id, name, digest, hint, unlimited, created_us)"
        " VALUES (?, 'n', randomblob(32), 'h', 0, 0)",
        [(name,) for name in names],
    )
    connection.executemany(
        "INSERT INTO accounts (id, key_id, kind) VALUES (?1, ?1, 'prepaid')",
        [(name,) for name in names],
    )


def _many_days(connection) -> None:
    [(account,)] = connection.execute(
        "SELECT id FROM accounts WHERE kind <> 'system' LIMIT 1"
    ).fetchall()
    connection.executemany(
        "INSERT INTO usage_days (day, account, model, tier, calls, units, amount)"
        " VALUES (?, ?, ?, 'batch', 10, 10, 10)",
        [(day, account, f"model-{model}") for day in range(365) for model in range(300)],
    )


async def _purchase(load: Load) -> Purchase:
    spec = load.on.appliance.models.catalog.find(EMBED)
    return Purchase(
        key_id=load.key.id,
        request_id="req_0",
        model=spec.id,
        tier="realtime",
        units=5,
        each=spec.tariff.each("realtime"),
        price=await load.pipeline._billing.prices.version(spec.id, spec.tariff),
        daily_budget=None,
    )


def _say(text: str) -> None:
    print(text)  # noqa: T201 - for whoever measures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        asyncio.run(measure(Path(folder), options.calls, options.keys))


if __name__ == "__main__":
    main()
