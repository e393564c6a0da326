"""How a batch ends, whatever meets its end: a cancel, books that refuse, time, blank lines."""

import asyncio
import io

import msgspec
import pytest

from appliance.batches import batch_run
from appliance.batches.lines import check
from appliance.core.errors import LedgerUnavailable
from appliance.core.limits import Limits
from appliance.ledger import batches
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
