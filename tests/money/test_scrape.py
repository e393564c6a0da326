"""What a scrape says of money is what the books say, to the last picocredit."""

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from appliance.ledger import ledger
from tests.appliance import bench
from tests.server import EMBED, RERANK


def amounts(text):
    """Each sample whose name speaks of picocredits, or of charges."""
    return {
        (sample.name, *sorted(sample.labels.values())): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "picocredits" in sample.name or sample.name == "gigarouter_charges_total"
    }


def take_back_last(connection, now_us):
    """Refund the last charge, as if its answer had not been delivered."""
    [(seq,)] = connection.execute("SELECT MAX(seq) FROM transfers")
    connection.execute("INSERT OR IGNORE INTO undelivered (seq) VALUES (?)", (seq,))
    assert ledger.refund(connection, seq, "refund", now_us)


def test_after_a_load_a_scrape_adds_up_with_the_books(tmp_path):
    async def call(on, key, number):
        headers = {
            "authorization": f"Bearer {key.key}",
            "x-tier": ("realtime", "batch")[number % 2],
        }
        if number % 3:
            path, body = "/v1/embeddings", {"model": EMBED, "input": ["word " * (number % 50)] * 3}
        else:
            path, body = "/v1/rerank", {"model": RERANK, "query": "q", "documents": ["a", "b"]}
        return (await on.client.post(path, json=body, headers=headers)).status_code

    async def story():
        async with asyncio.timeout(120), bench(tmp_path / "data") as on:
            keys = [await on.mint(name=f"n{n}", credit=("0.00005", "3", "7")[n]) for n in range(3)]
            calls = (call(on, keys[n % 3], n) for n in range(120))
            statuses = await asyncio.gather(*calls)
            now_us = on.clock.wall_us()
            await on.books.writer.run(lambda c: take_back_last(c, now_us))
            found = amounts((await on.client.get("/metrics")).text)
            rows = await on.books.writer.run(
                lambda c: c.execute(
                    "SELECT kind, model, tier, debit, amount FROM transfers"
                ).fetchall()
            )
            posted = await on.books.writer.run(
                lambda c: c.execute(
                    "SELECT SUM(posted) FROM accounts WHERE kind = 'prepaid'"
                ).fetchone()[0]
            )
        return statuses, found, rows, posted

    statuses, found, rows, posted = asyncio.run(story())
    assert {200, 402} <= set(statuses)
    charges = [row for row in rows if row[0] == "charge"]
    assert len(charges) == statuses.count(200)
    for model, tier in {(row[1], row[2]) for row in charges}:
        mine = [row[4] for row in charges if row[1:3] == (model, tier)]
        labels = sorted((model, tier))
        assert found["gigarouter_charged_picocredits_total", *labels] == sum(mine)
        assert found["gigarouter_charges_total", *labels] == len(mine)
    for key in {row[3] for row in charges}:
        mine = [row[4] for row in charges if row[3] == key]
        assert found["gigarouter_key_charged_picocredits_total", key] == sum(mine)
    for kind in ("grant", "refund"):
        assert found["gigarouter_credited_picocredits_total", kind] == sum(
            row[4] for row in rows if row[0] == kind
        )
    assert found["gigarouter_left_picocredits",] == posted
