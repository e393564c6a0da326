"""How a batch ends, whatever meets its end: a cancel, books that refuse, time, blank lines."""

import asyncio
import io
import sqlite3

import msgspec
import pytest

from appliance.batches import batch_run
from appliance.batches.lines import check
from appliance.batches.result_files import ResultFiles
from appliance.core.errors import LedgerUnavailable, QueueFull
from appliance.core.limits import Limits
from appliance.ledger import batches, files
from tests.unit.batches.test_batch_run import play


def test_a_cancel_that_meets_the_end_leaves_it_ended(tmp_path, monkeypatch):
    whole = batch_run.BatchRun._end
    cancels = []

    async def end(self, *arguments):
        ending = asyncio.create_task(whole(self, *arguments))
        await asyncio.sleep(0)  # it is on its way into the books
        cancels.append(await self.cancel())
        await ending

    monkeypatch.setattr(batch_run.BatchRun, "_end", end)

    async def story(at):
        batch = await at.order("a", "b")
        seen = await at.ended(batch)
        assert (seen["status"], seen["request_counts"]["completed"]) == ("completed", 2)
        assert len(await at.lines(seen["output_file_id"])) == 2
        await asyncio.sleep(0.3)
        assert (await at.look(batch))["status"] == "completed"
        assert len(cancels) == 1

    play(tmp_path, story)


def test_books_do_not_open_again_what_has_ended(tmp_path):
    async def story(at):
        batch = await at.order("a")
        await at.ended(batch)
        stored = await at.books(lambda c: batches.find(c, at.key_id, batch))
        again = msgspec.structs.replace(stored, status="cancelling")
        await at.on.books.writer.run(lambda c: batches.save(c, again))
        assert (await at.books(lambda c: batches.find(c, at.key_id, batch))).status == "completed"

    play(tmp_path, story)


def test_a_cancel_that_the_books_refuse_loses_no_line(tmp_path, monkeypatch):
    async def story(at):
        at.on.backend.gate.clear()
        batch = await at.order(*"abcd")
        await at.until(batch, lambda seen: seen["status"] == "in_progress")
        whole = batches.save
        is_refused = asyncio.Event()

        def refused(connection, row):
            if row.status == "cancelling":
                is_refused.set()
                raise LedgerUnavailable("a test")
            whole(connection, row)

        monkeypatch.setattr(batches, "save", refused)
        answer = await at.ask("POST", f"/v1/batches/{batch}/cancel")
        assert answer.status_code == 503
        monkeypatch.setattr(batches, "save", whole)
        at.on.backend.gate.set()
        seen = await at.ended(batch)
        assert (seen["status"], seen["request_counts"]["completed"]) == ("completed", 4)
        assert is_refused.is_set()

    play(tmp_path, story)


def test_what_is_out_of_time_does_not_wait_for_realtime_calls(tmp_path):
    async def story(at):
        pipeline = at.on.appliance.pipeline
        pipeline.realtime_in_flight += 1  # one that never ends
        batch = await at.order(*(f"text {number}" for number in range(2_000)))
        await at.until(batch, lambda seen: seen["status"] == "in_progress")
        at.on.clock.advance(90_000)
        seen = await at.ended(batch)  # at a line each 10 ms it would take longer than is waited
        assert seen["status"] == "expired"
        assert seen["request_counts"]["failed"] > 1_000
        pipeline.realtime_in_flight -= 1

    play(tmp_path, story)


def test_blank_lines_are_no_requests_and_are_counted_all_the_same():
    limits = Limits(batch_lines_max=10)
    one = b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{}}\n'
    assert check(io.BytesIO(b"\n \n" + one + b"\n" * 3), "/v1/embeddings", limits).total == 1
    many = check(io.BytesIO(b"\n" * 11 + one), "/v1/embeddings", limits)
    assert [error.code for error in many.errors] == ["too_many_lines"]
    assert "blank ones included" in many.errors[0].message


@pytest.mark.parametrize("asked", [1, 1_000])
def test_a_file_of_blank_lines_is_left_when_it_is_over(asked):
    looks = 0

    def is_over():
        nonlocal looks
        looks += 1
        return looks > asked

    limits = Limits(batch_lines_max=100_000)
    check(io.BytesIO(b"\n" * 50_000), "/v1/embeddings", limits, is_over)
    assert looks == asked + 1


def test_a_batch_is_finalizing_while_its_files_are_closed(tmp_path, monkeypatch):
    async def story(at):
        seen = []
        close = ResultFiles.close

        def looked(opened):
            with sqlite3.connect(at.on.books.writer.path) as connection:
                seen.extend(connection.execute("SELECT status, finalizing_us FROM batches"))
            close(opened)

        monkeypatch.setattr(ResultFiles, "close", looked)
        batch = await at.ended(await at.order("a"))
        [(status, finalizing_us)] = seen
        assert (status, batch["status"]) == ("finalizing", "completed")
        assert batch["finalizing_at"] == finalizing_us // 1_000_000

    play(tmp_path, story)


def test_a_cancelled_batch_ends_though_the_disk_takes_nothing_and_costs_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("appliance.batches.result_writer.RETRY_S", 0.02)
    monkeypatch.setattr(batch_run, "SETTLE_S", 0.1)

    def full(*_, **__):
        raise OSError(28, "no space left")

    monkeypatch.setattr("appliance.batches.results.ResultFile.append", full)

    async def story(at):
        batch = await at.order("a", "b")
        async with asyncio.timeout(20):
            while not await at.books(  # noqa: ASYNC110 - as a client does
                lambda c: c.execute("SELECT 1 FROM transfers WHERE kind = 'charge'").fetchall()
            ):
                await asyncio.sleep(0.01)
        await at.ask("POST", f"/v1/batches/{batch}/cancel")
        async with asyncio.timeout(20):
            seen = await at.ended(batch)
        assert seen["status"] == "cancelled"
        assert seen["output_file_id"] is None
        owed = await at.books(lambda c: batches.owed(c, batch))
        assert owed == {}, "what was charged is given back"

    play(tmp_path, story)


def test_results_that_are_gone_are_not_announced(tmp_path, monkeypatch):
    whole = batch_run.BatchRun.run

    async def run(self):
        known = {"status": "in_progress", "in_progress_us": 1, "total": 1, "output_bytes": 99}
        self.batch = msgspec.structs.replace(self.batch, **known)
        await whole(self)

    monkeypatch.setattr(batch_run.BatchRun, "run", run)

    async def story(at):
        batch = await at.order("a")
        seen = await at.ended(batch)
        assert seen["status"] == "failed"
        assert seen["errors"]["data"][0]["code"] == "results_missing"
        assert seen["output_file_id"] is None
        stored = await at.books(lambda c: batches.find(c, at.key_id, batch))
        assert await at.books(files.names) == {stored.input_file}

    play(tmp_path, story)


def test_results_of_a_batch_that_runs_count_among_its_keys_files(tmp_path):
    async def story(at):
        at.on.appliance.pipeline.draining = True
        batch = await at.order("a")
        before = await at.books(lambda c: files.used(c, at.key_id))
        stored = await at.books(lambda c: batches.find(c, at.key_id, batch))
        grown = msgspec.structs.replace(stored, output_bytes=70, error_bytes=7)
        await at.on.books.writer.run(lambda c: batches.save(c, grown))
        after = await at.books(lambda c: files.used(c, at.key_id))
        assert (after.bytes - before.bytes, after.count) == (77, before.count)

    play(tmp_path, story)


def test_one_key_does_not_fill_the_memory_of_all_batches(tmp_path, monkeypatch):
    works = []
    run = batch_run.BatchRun.run

    async def noted(self):
        works.append(self._work)
        await run(self)

    monkeypatch.setattr(batch_run.BatchRun, "run", noted)

    async def story(at):
        await at.ended(await at.order("a"))
        held, limits = works[0].held, works[0].limits
        of_one = [held.of_call("one") for _ in range(2)]
        of_one[0].take(limits.batch_held_bytes_per_key_max)
        with pytest.raises(QueueFull):
            of_one[1].take(1)
        other = held.of_call("other")
        other.take(limits.batch_held_bytes_per_key_max)
        for each in (*of_one, other):
            each.release()

    play(tmp_path, story)
