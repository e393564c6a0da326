"""One batch beside everything that may come between: refusals that pass, time, disks, keys."""

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from appliance.core.errors import InferenceFailed, LedgerUnavailable, ModelWarming, QueueFull
from appliance.core.limits import Limits
from appliance.ledger import batches
from tests.appliance import bench
from tests.money.audit import problems
from tests.server import EMBED

DEADLINE_S = 30
ENDED = ("completed", "failed", "expired", "cancelled")


class Desk:
    """A key's view of an appliance inside the test."""

    def __init__(self, on, minted):
        self.on, self.key_id = on, minted.id
        self.auth = {"authorization": f"Bearer {minted.key}"}

    async def ask(self, method, path, **more):
        return await self.on.client.request(method, path, headers=self.auth, **more)

    async def upload(self, content):
        return await self.ask(
            "POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("x.jsonl", content)}
        )

    async def order(self, *texts):
        lines = [
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"model": EMBED, "input": text},
            }
            for number, text in enumerate(texts, start=1)
        ]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        file = (await self.upload(content)).json()
        order = {"input_file_id": file["id"], "endpoint": "/v1/embeddings"}
        made = await self.ask("POST", "/v1/batches", json={**order, "completion_window": "24h"})
        assert made.status_code == 200, made.text
        return made.json()["id"]

    async def look(self, batch):
        found = (await self.ask("GET", f"/v1/batches/{batch}")).json()
        if "status" in found:
            return found
        # The key is good no more: the books say how it ended.
        stored = await self.books(lambda c: batches.find(c, self.key_id, batch))
        return {"status": stored.status, "errors": stored.errors}

    async def books(self, question):
        return await self.on.books.writer.run(question, durable=False)

    async def until(self, batch, wanted):
        async with asyncio.timeout(DEADLINE_S):
            while not wanted(seen := await self.look(batch)):  # noqa: ASYNC110 - as a client does
                await asyncio.sleep(0.01)
        return seen

    async def ended(self, batch):
        return await self.until(batch, lambda seen: seen["status"] in ENDED)

    async def lines(self, file_id):
        content = await self.ask("GET", f"/v1/files/{file_id}/content")
        return [json.loads(line) for line in content.text.splitlines()]


@asynccontextmanager
async def desk(tmp_path, *, limits=None, **order):
    async with bench(tmp_path / "data", limits=limits) as on:
        yield Desk(on, await on.mint(**order))
        assert await on.books.writer.run(problems, durable=False) == []


def play(tmp_path, story, **more):
    async def run():
        async with asyncio.timeout(2 * DEADLINE_S), desk(tmp_path, **more) as at:
            await story(at)

    asyncio.run(run())


@pytest.fixture
def refusing(monkeypatch):
    """Let the pipeline refuse the first calls, each with the next of some errors."""

    def install(at, *errors):
        pipeline, left = at.on.appliance.pipeline, list(errors)
        run = pipeline.run

        async def refuses(call, task):
            if left:
                raise left.pop(0)
            return await run(call, task)

        monkeypatch.setattr(pipeline, "run", refuses)
        monkeypatch.setattr("appliance.batches.line_call.LONGEST_S", 0.01)

    return install


@pytest.mark.parametrize(
    "error",
    [
        QueueFull(retry_after_s=30),
        ModelWarming(model="m", retry_after_s=30),
        LedgerUnavailable("a test"),
        InferenceFailed("once"),
        RuntimeError("a bug"),
    ],
)
def test_what_passes_by_itself_is_tried_again_and_is_no_error(tmp_path, refusing, error):
    async def story(at):
        refusing(at, error, error)
        seen = await at.ended(await at.order("a", "b", "c"))
        assert seen["request_counts"] == {"total": 3, "completed": 3, "failed": 0}

    play(tmp_path, story)


def test_what_cannot_be_computed_is_an_error_in_the_end(tmp_path, refusing):
    async def story(at):
        refusing(at, *[InferenceFailed("always")] * 3)
        seen = await at.ended(await at.order("a"))
        assert seen["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
        [line] = await at.lines(seen["error_file_id"])
        assert line["response"]["status_code"] == 500

    play(tmp_path, story)


def test_lines_that_were_begun_in_time_are_answered(tmp_path):
    async def story(at):
        at.on.backend.gate.clear()
        batch = await at.order(*(f"text {number}" for number in range(5)))
        await at.until(batch, lambda _: at.on.appliance.pipeline.in_flight == 5)
        at.on.clock.advance(86_400)
        at.on.backend.gate.set()
        seen = await at.ended(batch)
        # All were begun: what is begun is finished and paid.
        assert seen["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
        assert seen["status"] == "completed"

    play(tmp_path, story)


def test_a_batch_whose_time_is_over_before_it_begins_has_late_lines_alone(tmp_path, refusing):
    async def story(at):
        refusing(at, *[QueueFull(retry_after_s=1)] * 10_000)
        batch = await at.order("a", "b", "c")
        await at.until(batch, lambda seen: seen["status"] == "in_progress")
        at.on.clock.advance(86_400)
        seen = await at.ended(batch)
        assert seen["status"] == "expired"
        assert seen["expired_at"] >= seen["expires_at"]
        assert seen["request_counts"] == {"total": 3, "completed": 0, "failed": 3}
        for line in await at.lines(seen["error_file_id"]):
            assert (line["response"], line["error"]["code"]) == (None, "batch_expired")

    play(tmp_path, story)


def test_a_daily_budget_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.batches.line_call.LONGEST_S", 0.05)

    async def story(at):
        batch = await at.order(*(f"text {number}" for number in range(4)))
        some = await at.until(batch, lambda seen: seen["request_counts"]["completed"] >= 1)
        await asyncio.sleep(0.3)
        assert (await at.look(batch))["status"] == "in_progress"
        assert some["request_counts"]["failed"] == 0
        for _ in range(3):
            at.on.clock.advance(80_000 / 4)
            await asyncio.sleep(0.1)
        at.on.clock.advance(7_000)
        seen = await at.until(batch, lambda seen: seen["request_counts"]["completed"] >= 2)
        assert seen["request_counts"]["failed"] == 0

    # A text is 4 tokens at 4,000 picocredits.
    play(tmp_path, story, daily_budget="0.00000003")


def test_a_key_that_is_revoked_ends_its_batch_and_pays_for_what_was_written(tmp_path):
    async def story(at):
        at.on.backend.gate.clear()
        batch = await at.order(*(f"text {number}" for number in range(50)))
        await at.until(batch, lambda seen: seen["status"] == "in_progress")
        await at.on.appliance.admin.keys.revoke(at.key_id)
        at.on.backend.gate.set()
        seen = await at.ended(batch)
        assert seen["status"] == "failed"
        assert seen["errors"][0].code == "invalid_api_key"
        assert await at.books(lambda c: batches.owed(c, batch)) == {}

    play(tmp_path, story)


def test_a_full_disk_makes_a_batch_wait_and_computes_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.batches.result_writer.RETRY_S", 0.05)

    async def story(at):
        write, tries = os.write, []

        def full(handle, content):
            if bytes(content[:8]) == b'{"id":"b' and len(tries) < 3:
                tries.append(write(handle, content[:100]))
                raise OSError(28, "no space left")
            return write(handle, content)

        monkeypatch.setattr("appliance.batches.results.os.write", full)
        seen = await at.ended(await at.order("a", "b", "c"))
        assert len(tries) == 3
        assert seen["request_counts"]["completed"] == 3
        assert len(await at.lines(seen["output_file_id"])) == 3
        [(charges,)] = await at.books(
            lambda c: c.execute("SELECT COUNT(*) FROM transfers WHERE kind = 'charge'").fetchall()
        )
        assert charges == 3

    play(tmp_path, story)


def test_an_input_that_is_lost_fails_the_batch(tmp_path):
    async def story(at):
        at.on.appliance.pipeline.draining = True  # nothing begins
        batch = await at.order("a")
        for path in at.on.directory.files.iterdir():
            path.unlink()
        at.on.appliance.pipeline.draining = False
        seen = await at.ended(batch)
        assert seen["status"] == "failed"
        assert seen["errors"]["data"][0]["code"] == "input_file_missing"

    play(tmp_path, story)


def test_a_batch_that_we_cannot_compute_fails_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.batches.batch_runner.RETRY_S", 0.01)

    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("appliance.batches.batch_run.unanswered_lines", broken)

    async def story(at):
        seen = await at.ended(await at.order("a"))
        assert seen["status"] == "failed"
        assert seen["errors"]["data"][0]["code"] == "server_error"

    play(tmp_path, story)


def test_what_a_revoked_key_had_is_forgotten(tmp_path):
    async def story(at):
        await at.ended(await at.order("a"))
        services = at.on.appliance.app.dependencies["services"].dependency()
        await at.on.appliance.admin.keys.revoke(at.key_id)
        await services.offline.expiry.once()
        assert list(at.on.directory.files.iterdir()) == []
        for table in ("files", "batches"):
            count = f"SELECT COUNT(*) FROM {table}"
            assert await at.books(lambda c, count=count: c.execute(count).fetchall()) == [(0,)]

    play(tmp_path, story)


def test_a_key_has_so_many_files_bytes_and_batches(tmp_path):
    limits = replace(
        Limits(),
        file_bytes_max=1_000,
        files_bytes_per_key_max=1_500,
        files_per_key_max=3,
        batches_open_per_key_max=2,
    )

    async def story(at):
        assert (await at.upload(b"x" * 1_001)).status_code == 413
        first = (await at.upload(b"x" * 1_000)).json()
        refused = await at.upload(b"x" * 501)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "file")
        assert (await at.ask("DELETE", f"/v1/files/{first['id']}")).status_code == 200
        at.on.appliance.pipeline.draining = True
        for _ in range(2):
            await at.order("a")
        order = {"endpoint": "/v1/embeddings", "completion_window": "24h"}
        third = (await at.upload(b"x")).json()
        made = await at.ask("POST", "/v1/batches", json={"input_file_id": third["id"], **order})
        assert (made.status_code, made.json()["error"]["code"]) == (400, "invalid_request")
        fourth = await at.upload(b"x")
        assert "may have 3" in fourth.json()["error"]["message"]
        assert len(list(at.on.directory.files.iterdir())) == 3

    play(tmp_path, story, limits=limits)


def test_a_full_disk_refuses_an_upload_and_keeps_nothing_of_it(tmp_path):
    async def story(at):
        answer = await at.upload(b"x" * 2_000_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_full")
        assert list(at.on.directory.files.iterdir()) == []

    play(tmp_path, story, limits=replace(Limits(), files_free_bytes_min=2**60))


def test_files_go_when_their_time_is_over_and_what_a_crash_left_goes_at_a_start(tmp_path):
    async def story(at):
        kept = (await at.upload(b"x")).json()
        at.on.clock.advance(30 * 86_400)
        assert (await at.ask("GET", f"/v1/files/{kept['id']}")).status_code == 404
        expiry = at.on.appliance.app.dependencies["services"].dependency().offline.expiry
        await expiry.once()
        assert list(at.on.directory.files.iterdir()) == []
        left = at.on.directory.files / "file-left"
        left.write_bytes(b"x")

    play(tmp_path, story)
    play(tmp_path, _none_left)


async def _none_left(at):
    assert list(at.on.directory.files.iterdir()) == []


def test_few_lines_are_in_flight_while_realtime_calls_come_and_all_are_answered(tmp_path):
    async def story(at):
        pipeline, most = at.on.appliance.pipeline, 0
        call = {"model": EMBED, "input": "now"}
        batch = await at.order(*(f"text {number}" for number in range(200)))
        for _ in range(20):
            assert (await at.ask("POST", "/v1/embeddings", json=call)).status_code == 200
            assert pipeline.is_realtime_about
            most = max(most, pipeline.in_flight)
        assert most <= at.on.limits.batch_lines_beside_realtime_max
        pipeline.realtime_in_flight += 1  # one that never ends
        seen = await at.ended(batch)
        assert seen["request_counts"]["completed"] == 200
        pipeline.realtime_in_flight -= 1
        at.on.clock.advance(2)
        assert not pipeline.is_realtime_about

    play(tmp_path, story)


def test_two_keys_share_the_lines_in_flight(tmp_path):
    limits = replace(
        Limits(), batch_lines_in_flight_max=40, batches_running_max=4, batches_running_per_key_max=2
    )

    async def story(at):
        other = Desk(at.on, await at.on.mint())
        at.on.backend.gate.clear()
        for each in (at, other):
            await each.order(*(f"text {number}" for number in range(100)))
        pipeline = at.on.appliance.pipeline
        async with asyncio.timeout(DEADLINE_S):
            while pipeline.in_flight < 40:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert pipeline.in_flight <= 60  # the first had all places until the second came
        at.on.backend.gate.set()
        for each in (at, other):
            [batch] = (await each.ask("GET", "/v1/batches")).json()["data"]
            assert (await each.ended(batch["id"]))["status"] == "completed"

    play(tmp_path, story, limits=limits)
