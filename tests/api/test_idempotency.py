"""Idempotency-Key: a call that is sent twice is answered twice and charged once."""

import asyncio

import pytest

from appliance.core.errors import ModelWarming
from appliance.ledger.idempotency import REPLAYS_MAX
from appliance.wire.keys import TopUpOrder
from tests.appliance import bench
from tests.money.audit import Books
from tests.server import EMBED, RERANK

BODY = {"model": EMBED, "input": "a text that nobody else sends"}
RANKING = {"model": RERANK, "query": "q", "documents": ["a", "b", "c"]}
KEY = "0c9d6d3e-the-client-made-this"


class Caller:
    """Sends calls with one key and counts what the books charge."""

    def __init__(self, on, header):
        self.on, self.header = on, header

    async def post(self, body=BODY, *, path="/v1/embeddings", token=KEY, **headers):
        sent = {**self.header, **headers}
        if token is not None:
            sent["idempotency-key"] = token
        return await self.on.client.post(path, json=body, headers=sent)

    async def charges(self):
        return await self.on.books.writer.run(
            lambda c: c.execute("SELECT COUNT(*) FROM transfers WHERE kind = 'charge'").fetchone()[
                0
            ],
            durable=False,
        )


def played(tmp_path, story, **key):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            minted = await on.mint(**key)
            caller = Caller(on, {"authorization": f"Bearer {minted.key}"})
            caller.id = minted.id
            await story(caller)
            assert not on.books.balances.held()

    asyncio.run(scenario())
    books = Books(tmp_path / "data")
    assert books.problems == []
    return books


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/embeddings", BODY), ("/v1/rerank", RANKING)], ids=["embed", "rerank"]
)
def test_a_repeated_call_gets_the_same_answer_and_is_charged_once(tmp_path, path, body):
    async def story(caller):
        first = await caller.post(body, path=path)
        again = await caller.post(body, path=path)
        assert (first.status_code, again.status_code) == (200, 200)
        drop = {"id"}
        assert {k: v for k, v in first.json().items() if k not in drop} == {
            k: v for k, v in again.json().items() if k not in drop
        }
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        for name in ("x-cost", "x-balance", "x-tier", "x-model-fingerprint"):
            assert again.headers[name] == first.headers[name], name
        assert await caller.charges() == 1

    assert len(played(tmp_path, story, credit="1").charges) == 1


def test_a_call_is_computed_again_a_few_times_and_then_refused(tmp_path):
    async def story(caller):
        for number in range(1 + REPLAYS_MAX):
            answer = await caller.post()
            assert answer.status_code == 200
            assert ("idempotent-replayed" in answer.headers) == (number > 0)
        for _ in range(2):
            refused = await caller.post()
            assert refused.status_code == 409
            assert refused.json()["error"]["code"] == "idempotency_key_spent"
            assert refused.headers["x-should-retry"] == "false"
        assert (await caller.post(token="another")).status_code == 200
        caller.on.clock.advance(24 * 3600)
        assert "idempotent-replayed" not in (await caller.post()).headers, "a day later it is new"
        assert await caller.charges() == 3

    played(tmp_path, story)


def test_a_repetition_that_is_refused_before_it_is_computed_does_not_count(tmp_path):
    async def story(caller):
        assert (await caller.post()).status_code == 200
        residency = caller.on.appliance.residency
        ready, wait = residency.ready, residency.wait

        async def refuses(*_, **__):
            raise ModelWarming(model="x", retry_after_s=1)

        residency.ready, residency.wait = lambda _: None, refuses
        for _ in range(2 * REPLAYS_MAX):
            assert (await caller.post()).status_code == 503
        residency.ready, residency.wait = ready, wait
        for _ in range(REPLAYS_MAX):
            assert (await caller.post()).headers["idempotent-replayed"] == "true"
        assert (await caller.post()).status_code == 409

    played(tmp_path, story)


def test_calls_without_the_header_are_charged_each(tmp_path):
    async def story(caller):
        for _ in range(2):
            assert (await caller.post(token=None)).status_code == 200
        assert await caller.charges() == 2

    played(tmp_path, story)


@pytest.mark.parametrize(
    "other",
    [
        {"body": {**BODY, "input": "another text"}},
        {"body": {**BODY, "encoding_format": "base64"}},
        {"x-tier": "batch"},
        {"body": RANKING, "path": "/v1/rerank"},
    ],
    ids=["another text", "another field", "another tier", "another endpoint"],
)
def test_another_request_under_the_same_key_is_refused_and_costs_nothing(tmp_path, other):
    async def story(caller):
        assert (await caller.post()).status_code == 200
        refused = await caller.post(**other)
        assert refused.status_code == 422
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
        assert refused.headers["x-should-retry"] == "false"
        assert (await caller.post()).headers["idempotent-replayed"] == "true"
        assert await caller.charges() == 1

    played(tmp_path, story)


def test_while_the_first_call_runs_the_second_is_told_so(tmp_path):
    async def story(caller):
        caller.on.backend.gate.clear()
        first = asyncio.create_task(caller.post())
        while caller.on.appliance.pipeline.in_flight == 0:  # noqa: ASYNC110 - it rings no bell
            await asyncio.sleep(0)
        second = await caller.post()
        assert (second.status_code, second.json()["error"]["code"]) == (
            409,
            "idempotency_key_in_use",
        )
        assert "retry-after" not in second.headers
        caller.on.backend.gate.set()
        assert (await first).status_code == 200
        assert (await caller.post()).headers["idempotent-replayed"] == "true"
        assert await caller.charges() == 1

    played(tmp_path, story)


def test_what_failed_is_not_remembered(tmp_path):
    async def story(caller):
        assert (await caller.post()).status_code == 402
        await caller.on.appliance.admin.keys.top_up(caller.id, TopUpOrder(credit="1"))
        caller.on.backend.refuse = True
        assert (await caller.post()).status_code == 500
        caller.on.backend.refuse = False
        answer = await caller.post()
        assert answer.status_code == 200
        assert "idempotent-replayed" not in answer.headers
        assert await caller.charges() == 1

    played(tmp_path, story, credit="0")


def test_a_key_is_remembered_for_a_day_and_over_a_restart(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            minted = await on.mint()
            caller = Caller(on, {"authorization": f"Bearer {minted.key}"})
            assert (await caller.post()).status_code == 200
            began = on.clock.wall
        async with bench(tmp_path / "data") as on:
            caller = Caller(on, caller.header)
            on.clock.wall = began
            on.clock.advance(24 * 3_600 - 1)
            assert (await caller.post()).headers["idempotent-replayed"] == "true"
            assert await caller.charges() == 1
            on.clock.advance(1)
            assert "idempotent-replayed" not in (await caller.post()).headers
            assert await caller.charges() == 2

    asyncio.run(scenario())


def test_a_repeated_call_needs_no_credit(tmp_path):
    async def story(caller):
        answer = await caller.post()
        assert answer.headers["x-balance"] == "0"
        assert (await caller.post(token=None)).status_code == 402
        assert (await caller.post()).status_code == 200

    played(tmp_path, story, credit="0.000000064")


def test_keys_of_different_customers_do_not_meet(tmp_path):
    async def story(caller):
        other = Caller(caller.on, await caller.on.key())
        assert (await caller.post()).status_code == 200
        answer = await other.post({**BODY, "input": "their own"})
        assert answer.status_code == 200
        assert "idempotent-replayed" not in answer.headers

    played(tmp_path, story)


@pytest.mark.parametrize("token", ["", " ", "a b", "x" * 256, "über", "tab\there"])
def test_a_key_that_cannot_be_one_is_refused(tmp_path, token):
    async def story(caller):
        headers = [*caller.header.items(), ("idempotency-key", token.encode("latin-1"))]
        answer = await caller.on.client.post("/v1/embeddings", json=BODY, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "Idempotency-Key"
        assert await caller.charges() == 0

    played(tmp_path, story)


def test_a_repeated_call_counts_towards_the_keys_rates(tmp_path):
    async def story(caller):
        assert [(await caller.post()).status_code for _ in range(4)] == [200, 200, 200, 429]

    played(tmp_path, story, rpm=3)


def test_nothing_of_the_call_is_in_the_books(tmp_path):
    async def story(caller):
        assert (await caller.post()).status_code == 200

    played(tmp_path, story)
    for file in (tmp_path / "data").glob("gigarouter.db*"):
        content = file.read_bytes()
        assert BODY["input"].encode() not in content
        assert KEY.encode() not in content
