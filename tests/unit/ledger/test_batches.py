"""Charges for lines of batches: kept over a crash while the batch goes on, and never two."""

import asyncio
import sqlite3

import pytest

from appliance.core.errors import BatchNotFound, InvalidRequest
from appliance.ledger import batches, files
from appliance.ledger.batches import Batch, BatchError
from appliance.ledger.entry import BatchLine, Purchase
from appliance.ledger.recovery import recover
from tests.appliance import bench
from tests.money.audit import problems
from tests.server import EMBED


def batch_of(key_id, **changes):
    given = {
        "id": "batch_a",
        "key_id": key_id,
        "endpoint": "/v1/embeddings",
        "input_file": "file-in",
        "metadata": {"a": "b"},
        "status": "in_progress",
        "created_us": 1,
        "expires_us": 2,
        "output_file": "file-out",
        "error_file": "file-err",
    }
    return Batch(**(given | changes))


def insert(batch, **most):
    bounds = {"open_max": 100, "kept_max": 100} | most
    return lambda connection: batches.insert(connection, batch, **bounds)


def play(tmp_path, story):
    async def run():
        async with asyncio.timeout(60), bench(tmp_path / "data") as on:
            minted = await on.mint(credit="1")
            header = {"authorization": f"Bearer {minted.key}"}
            call = {"model": EMBED, "input": "a"}
            await on.client.post("/v1/embeddings", json=call, headers=header)
            billing = on.appliance.pipeline._billing
            await billing.delivery_acks.close()
            version = next(iter(billing.prices._current.values()))[1]

            async def charge(line, batch="batch_a"):
                bought = Purchase(minted.id, f"req {line}", EMBED, "batch", 2, 4000, version, None)
                hold = billing.holds.open(bought)
                return await billing.holds.settle(hold, BatchLine(batch, line))

            await story(on.books.writer.run, minted.id, charge)
            assert await on.books.writer.run(problems) == []

    asyncio.run(run())


def test_a_batch_is_written_and_read_as_it_is(tmp_path):
    async def story(ask, key_id, _):
        wrong = [BatchError("code", "message", "param", 7), BatchError("other", "message")]
        batch = batch_of(key_id, errors=wrong, failed_us=5, completed=3)
        await ask(insert(batch))
        assert await ask(lambda c: batches.find(c, key_id, "batch_a")) == batch
        later = batch_of(key_id, status="completed", total=9)
        await ask(lambda c: batches.save(c, later))
        assert await ask(lambda c: batches.find(c, key_id, "batch_a")) == later
        with pytest.raises(BatchNotFound):
            await ask(lambda c: batches.find(c, "key_other", "batch_a"))

    play(tmp_path, story)


def test_a_key_has_so_many_open_batches_and_the_oldest_that_ended_are_forgotten(tmp_path):
    async def story(ask, key_id, _):
        for number in range(6):
            status = "completed" if number < 4 else "in_progress"
            batch = batch_of(key_id, id=f"batch_{number}", status=status, created_us=number)
            await ask(insert(batch, kept_max=3))
        kept = await ask(lambda c: batches.page(c, key_id, after=None, limit=100))
        assert [batch.id for batch in kept] == ["batch_5", "batch_4", "batch_3"]
        with pytest.raises(InvalidRequest, match="2 batches"):
            await ask(insert(batch_of(key_id, id="batch_x"), open_max=2))
        assert [batch.id for batch in await ask(batches.unfinished)] == ["batch_4", "batch_5"]

    play(tmp_path, story)


def test_a_line_is_charged_once(tmp_path):
    async def story(ask, key_id, charge):
        await ask(insert(batch_of(key_id)))
        first = await charge(1)
        with pytest.raises(sqlite3.IntegrityError):
            await charge(1)
        await charge(2)
        owed = await ask(lambda c: batches.owed(c, "batch_a"))
        assert owed.keys() == {1, 2}
        assert owed[1] == first

    play(tmp_path, story)


def test_a_crash_keeps_what_was_charged_for_batches_that_go_on_and_for_no_others(tmp_path):
    async def story(ask, key_id, charge):
        await ask(insert(batch_of(key_id)))
        await ask(insert(batch_of(key_id, id="batch_b", status="cancelled")))
        kept = await charge(1)
        for batch in ("batch_b", "batch_gone"):
            await charge(1, batch)
        assert (await ask(lambda c: recover(c, 10))).refunded == 2
        assert await ask(lambda c: batches.owed(c, "batch_a")) == {1: kept}
        batch = batch_of(key_id, completed=1)
        await ask(lambda c: batches.written(c, batch, [kept.seq]))
        assert await ask(lambda c: batches.owed(c, "batch_a")) == {}
        assert (await ask(lambda c: recover(c, 10))).refunded == 0

    play(tmp_path, story)


def test_what_is_owed_when_a_batch_ends_is_given_back(tmp_path):
    async def story(ask, key_id, charge):
        await ask(insert(batch_of(key_id)))
        await charge(1)
        made = [files.StoredFile("file-out", key_id, "x.jsonl", "batch_output", 5, 1, 2)]
        ended = batch_of(key_id, status="failed")
        await ask(lambda c: files.end_batch(c, ended, made, 10))
        assert await ask(lambda c: batches.owed(c, "batch_a")) == {}
        refunds = "SELECT COUNT(*) FROM transfers WHERE kind = 'refund'"
        assert await ask(lambda c: c.execute(refunds).fetchall()) == [(1,)]
        assert await ask(lambda c: files.find(c, key_id, "file-out")) == made[0]

    play(tmp_path, story)
