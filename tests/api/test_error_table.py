"""Every refusal that the surface promises, provoked; none of them may cost anything."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from appliance.accounts import credential
from appliance.core.limits import Limits
from appliance.core.units import picocredits
from appliance.ledger.entry import Balance
from appliance.tasks.embed import EmbedTask
from appliance.wire.keys import MintedKey
from tests.api import contract
from tests.appliance import Bench, bench
from tests.server import EMBED, RERANK, Server

DEADLINE_S = 20.0
ONE = {"model": EMBED, "input": "one"}  # 3 tokens: [CLS] one [SEP]
RANK = {"model": RERANK, "query": "one", "documents": ["two", "three"]}
TINY = Limits(body_bytes_max=2_000, text_bytes_max=1_000)
Headers = dict[str, Any]


def prove(story: Coroutine[Any, Any, None]) -> None:
    """Run a story in a loop of its own; one that hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(2 * DEADLINE_S):
            await story

    asyncio.run(bounded())


async def until(happened: Callable[[], bool]) -> None:
    """Return once it has happened; no event of this loop would tell of another thread's work."""
    async with asyncio.timeout(DEADLINE_S):
        while not happened():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.001)


@dataclass
class Payer:
    """A bench and one prepaid key, whose books are looked at when the block ends."""

    bench: Bench
    minted: MintedKey
    auth: Headers

    async def post(self, body: Any = ONE, **headers: str) -> httpx2.Response:
        path = "/v1/rerank" if isinstance(body, dict) and "query" in body else "/v1/embeddings"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.bench.client.post(path, content=content, headers={**self.auth, **named})

    async def balance(self) -> Balance:
        # Behind what the writer has in its queue.
        await self.bench.books.writer.run(lambda _: None, durable=False)
        return self.bench.books.balances.balance(self.minted.id, self.bench.clock.wall_us())

    async def until_balance(self, wanted: Callable[[Balance], bool]) -> Balance:
        async with asyncio.timeout(DEADLINE_S):
            while not wanted(balance := await self.balance()):
                pass
        return balance

    async def until_queued(self, tokens: int) -> None:
        """Return once this many tokens are in the engine's queue, its current batch included."""
        await until(
            lambda: (
                sum(
                    entry.engine._queue.tokens + entry.engine._tokens_in_batches
                    for entry in self.entries()
                )
                >= tokens
            )
        )

    async def until_computing(self) -> None:
        """Return once the engine has a batch in its hands."""
        await until(lambda: any(entry.engine._computing for entry in self.entries()))

    async def until_waiting(self) -> None:
        """Return once a call waits for a model to load."""
        await until(lambda: any(entry.waiters for entry in self.entries()))

    def entries(self) -> list[Any]:
        return list(self.bench.appliance.residency.pool.entries.values())


@asynccontextmanager
async def paying(
    path: Path,
    *,
    credit: str = "1",
    charged: str | None = "0",
    limits: Limits | None = None,
    preload: bool = True,
    **key: Any,
) -> AsyncIterator[Payer]:
    """Yield a payer; at the end nothing is held, and `charged` credits are gone (None: any)."""
    async with bench(path / "data", limits=limits, preload=preload) as made:
        contract.watch(made.client)
        minted = await made.mint(credit=credit, **key)
        payer = Payer(made, minted, {"authorization": f"Bearer {minted.key}"})
        try:
            yield payer
        finally:
            for backend in getattr(made.appliance.loader, "opened", []):
                backend.gate.set()
        balance = await payer.until_balance(lambda balance: balance.held == 0)
        if charged is not None and not balance.unlimited:
            assert balance.posted == picocredits(credit) - picocredits(charged)


@asynccontextmanager
async def engine_held(payer: Payer) -> AsyncIterator[None]:
    """Hold every computation until the block ends."""
    payer.bench.backend.gate.clear()
    try:
        yield
    finally:
        payer.bench.backend.gate.set()


@asynccontextmanager
async def loading_held(payer: Payer) -> AsyncIterator[threading.Event]:
    """Hold every load of a model until the event is set, or the block ends."""
    loader, gate = payer.bench.appliance.loader, threading.Event()
    open_model = loader.open_model

    def held(spec: Any, progress: Any) -> Any:
        assert gate.wait(DEADLINE_S)
        return open_model(spec, progress)

    loader.open_model = held  # type: ignore[method-assign]
    try:
        yield gate
    finally:
        gate.set()


def refused(
    answer: httpx2.Response,
    status: int,
    code: str,
    *,
    param: str | None = None,
    should_retry: str | None = None,
) -> str:
    """Assert which refusal it is, and return its message; `contract` has checked its shape."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert answer.headers.get("x-should-retry") == should_retry
    return str(error["message"])


# -- 400 ----------------------------------------------------------------------------------------


WRONG_BODIES: list[tuple[Any, str | None]] = [
    ({"input": "a"}, None),
    ({"model": EMBED}, None),
    ({"model": EMBED, "input": ""}, "input"),
    ({"model": EMBED, "input": "a", "encoding_format": "hex"}, "encoding_format"),
    ({"model": RERANK, "query": "", "documents": ["a"]}, "query"),
    ({"model": RERANK, "query": "a", "documents": []}, "documents"),
    ({"model": RERANK, "query": "a"}, "documents"),
    (b"{", None),
]


def test_a_wrong_body_is_an_invalid_request_that_names_the_field(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            for body, param in WRONG_BODIES:
                refused(await payer.post(body), 400, "invalid_request", param=param)
            assert payer.bench.backend.computed == []

    prove(story())


def test_a_text_that_is_too_long_is_refused_when_cutting_is_forbidden(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            body = {"model": EMBED, "input": ["a", "word " * 255], "truncate": False}
            message = refused(await payer.post(body), 400, "input_too_long", param="input")
            assert "input[1] has 257 tokens" in message
            assert "this model takes 256" in message
            assert payer.bench.backend.computed == []

    prove(story())


def test_dimensions_the_model_lacks_are_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            answer = await payer.post({**ONE, "dimensions": 128})
            refused(answer, 400, "unsupported_dimensions", param="dimensions")

    prove(story())


def test_token_ids_are_refused_with_the_way_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            for tokens in ([1, 2, 3], [[1, 2], [3]]):
                answer = await payer.post({"model": EMBED, "input": tokens})
                message = refused(answer, 400, "token_input_unsupported", param="input")
                assert "check_embedding_ctx_length=False" in message
            for wrong in ([101.5], [-1], [[]], [[1], "a"]):
                answer = await payer.post({"model": EMBED, "input": wrong})
                refused(answer, 400, "invalid_request", param="input")

    prove(story())


def test_a_model_that_does_something_else_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            for body in ({**ONE, "model": RERANK}, {**RANK, "model": EMBED}):
                message = refused(await payer.post(body), 400, "wrong_task", param="model")
                assert body["model"] in message

    prove(story())


def test_a_call_of_too_many_tokens_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, limits=Limits(request_tokens_max=10)) as payer:
            refused(
                await payer.post({"model": EMBED, "input": ["one two three"] * 3}),
                400,
                "invalid_request",
                param="input",
            )
            refused(
                await payer.post({**RANK, "documents": ["one two three"] * 2}),
                400,
                "invalid_request",
                param="documents",
            )
            assert payer.bench.backend.computed == []

    prove(story())


# -- 401 ----------------------------------------------------------------------------------------


def test_a_call_without_a_key_is_told_to_send_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            for empty in ("Bearer", "Bearer "):
                payer.auth = {"authorization": empty}
                refused(await payer.post(), 401, "missing_api_key")
            for none in ({}, {"x-api-key": ""}, {"cookie": f"key={payer.minted.key}"}):
                payer.auth = none
                refused(await payer.post(), 401, "missing_api_key")

    prove(story())


def test_a_key_that_was_never_minted_is_invalid(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            mistyped = payer.minted.key[:-1] + ("0" if payer.minted.key[-1] != "0" else "1")
            never = credential.mint()
            for text in (mistyped, never, "gr-", "sk-" + "a" * 38, "cl\xe9", "a" * 10_000):
                payer.auth = {"authorization": f"Bearer {text}".encode("latin-1")}
                refused(await payer.post(), 401, "invalid_api_key")

    prove(story())


def test_a_revoked_key_is_invalid_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            assert (await payer.post()).status_code == 200
            await payer.bench.appliance.admin.keys.revoke(payer.minted.id)
            refused(await payer.post(), 401, "invalid_api_key")

    prove(story())


def test_a_key_is_invalid_from_the_second_at_which_it_expires(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, expires="1m") as payer:
            payer.bench.clock.advance(59)
            assert (await payer.post()).status_code == 200
            payer.bench.clock.advance(1)
            refused(await payer.post(), 401, "invalid_api_key")

    prove(story())


def test_a_key_may_come_in_any_of_three_headers(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            key = payer.minted.key
            for header, value in [
                ("x-api-key", key),
                ("api-key", key),
                ("authorization", key),  # some clients leave the scheme out
                ("authorization", f"bearer {key}"),
                ("authorization", f"BEARER  {key}"),
            ]:
                payer.auth = {header: value}
                assert (await payer.post()).status_code == 200

    prove(story())


def test_a_wrong_authorization_is_not_rescued_by_a_right_api_key(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            right = payer.minted.key
            payer.auth = {"authorization": f"Bearer {credential.mint()}", "x-api-key": right}
            refused(await payer.post(), 401, "invalid_api_key")
            payer.auth = {"x-api-key": credential.mint(), "api-key": right}
            refused(await payer.post(), 401, "invalid_api_key")

    prove(story())


# -- 402 ----------------------------------------------------------------------------------------


def test_a_call_that_costs_more_than_there_is_is_refused_before_it_is_computed(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        # 3 tokens at 0.000000008 credits: 0.000000024; one picocredit is missing.
        async with paying(tmp_path, credit="0.000000023999") as payer:
            answer = await payer.post()
            message = refused(answer, 402, "insufficient_credit", should_retry="false")
            assert "0.000000024" in message
            assert "0.000000023999" in message
            assert "retry-after" not in answer.headers
            assert payer.bench.backend.computed == []

    prove(story())


def test_the_last_picocredit_can_be_spent(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, credit="0.000000024", charged="0.000000024") as payer:
            answer = await payer.post()
            assert answer.status_code == 200
            assert answer.headers["x-balance"] == "0"
            refused(await payer.post(), 402, "insufficient_credit", should_retry="false")

    prove(story())


# -- 404, 405 -----------------------------------------------------------------------------------


def test_an_unknown_model_is_not_found_and_near_ones_are_named(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            answer = await payer.post({**ONE, "model": "all-MiniLM-L6-v3"})
            assert EMBED in refused(answer, 404, "model_not_found", param="model")
            answer = await payer.bench.client.get("/v1/models/nothing/at-all")
            refused(answer, 404, "model_not_found", param="model")

    prove(story())


def test_a_model_outside_a_keys_list_is_not_found_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, models=[EMBED]) as payer:
            assert (await payer.post(ONE)).status_code == 200
            message = refused(await payer.post(RANK), 404, "model_not_found", param="model")
            assert "Did you mean" not in message

    prove(story())


def test_a_model_whose_file_is_missing_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.toml").write_text(
        'schema = 1\n[[model]]\nid = "test/absent"\ntask = "embeddings"\nfile = "absent.gguf"\n'
        'dimensions = 8\nmax_input_tokens = 16\npooling = "mean"\n'
        'price = { unit = "1M tokens", realtime = 0.008 }\n'
    )

    async def story() -> None:
        async with paying(tmp_path) as payer:
            answer = await payer.post({**ONE, "model": "test/absent"})
            message = refused(answer, 404, "model_not_served", param="model")
            assert "absent.gguf" in message
            listed = (await payer.bench.client.get("/v1/models")).json()["data"]
            assert {m["id"]: m["available"] for m in listed}["test/absent"] is False

    prove(story())


def test_an_unknown_path_is_answered_with_the_valid_ones(tmp_path: Path) -> None:
    paths = "/v1/embedding", "/v1/", "/v1/chat/completions", "/embeddings/x", "/%00", "/%ff", "/é"

    async def story() -> None:
        async with paying(tmp_path) as payer:
            for path in paths:
                for method in ("GET", "POST", "OPTIONS"):
                    answer = await payer.bench.client.request(method, path, headers=payer.auth)
                    assert "/v1/embeddings" in refused(answer, 404, "unknown_path")

    prove(story())


def test_a_path_with_another_method_is_not_allowed(tmp_path: Path) -> None:
    asked = [
        ("GET", "/v1/embeddings"),
        ("PUT", "/v1/rerank"),
        ("POST", "/v1/models"),
        ("PATCH", "/account"),
        ("DELETE", "/v1/models/" + EMBED),
    ]

    async def story() -> None:
        async with paying(tmp_path) as payer:
            for method, path in asked:
                answer = await payer.bench.client.request(method, path, headers=payer.auth)
                message = refused(answer, 405, "method_not_allowed")
                assert message.startswith(f"{method} ")
                assert answer.headers["allow"].isupper()
                assert method not in answer.headers["allow"]

    prove(story())


# -- 413 ----------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    async def story() -> None:
        async with paying(tmp_path, charged=None, limits=TINY) as payer:
            refused(await payer.post(b" " * 2_001), 413, "body_too_large")
            client = payer.bench.client
            for path in ("/v1/embeddings", "/v1/rerank"):
                answer = await client.post(path, content=chunks(), headers=payer.auth)
                assert "2000" in refused(answer, 413, "body_too_large")
            fits = json.dumps(ONE).encode().ljust(2_000)
            assert (await payer.post(fits)).status_code == 200

    prove(story())


# -- 429 ----------------------------------------------------------------------------------------


def test_requests_a_minute_are_limited_until_the_moment_that_was_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, rpm=2) as payer:
            assert [(await payer.post()).status_code for _ in range(2)] == [200, 200]
            answer = await payer.post()
            message = refused(answer, 429, "rate_limited", should_retry="true")
            assert "2 requests a minute" in message
            wait = answer.json()["error"]["retry_after_s"]
            assert wait == 30
            payer.bench.clock.advance(wait - 1)
            refused(await payer.post(), 429, "rate_limited", should_retry="true")
            payer.bench.clock.advance(1)
            assert (await payer.post()).status_code == 200

    prove(story())


def test_tokens_a_minute_are_limited_until_the_moment_that_was_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, tpm=6) as payer:
            assert [(await payer.post()).status_code for _ in range(2)] == [200, 200]
            computed = list(payer.bench.backend.computed)
            answer = await payer.post()
            assert "6 tokens" in refused(answer, 429, "rate_limited", should_retry="true")
            assert payer.bench.backend.computed == computed
            payer.bench.clock.advance(answer.json()["error"]["retry_after_s"])
            assert (await payer.post()).status_code == 200

    prove(story())


def test_calls_at_one_time_are_limited_until_one_has_ended(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, concurrency=1) as payer:
            async with engine_held(payer), asyncio.TaskGroup() as group:
                first = group.create_task(payer.post())
                await payer.until_computing()
                answer = await payer.post()
                assert "1 call" in refused(answer, 429, "rate_limited", should_retry="true")
                payer.bench.backend.gate.set()
            assert first.result().status_code == 200
            assert (await payer.post()).status_code == 200

    prove(story())


def test_a_days_budget_is_over_until_midnight_utc(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, daily_budget="0.00000003") as payer:
            assert (await payer.post()).status_code == 200
            answer = await payer.post()
            # A client that retried by itself would wait for hours.
            refused(answer, 429, "daily_budget_exceeded", should_retry="false")
            wait = answer.json()["error"]["retry_after_s"]
            assert (payer.bench.clock.wall_us() // 1_000_000 + wait) % 86_400 == 0
            payer.bench.clock.advance(wait - 1)
            refused(await payer.post(), 429, "daily_budget_exceeded", should_retry="false")
            payer.bench.clock.advance(1)
            assert (await payer.post()).status_code == 200

    prove(story())


def test_a_full_queue_refuses_and_gives_the_hold_back(tmp_path: Path) -> None:
    narrow = Limits(request_tokens_max=7, queue_tokens_max=7)

    async def story() -> None:
        async with paying(tmp_path, charged="0.000000048", limits=narrow) as payer:
            async with engine_held(payer), asyncio.TaskGroup() as group:
                bodies = [{**ONE, "input": word} for word in ("one", "two")]
                waiting = [group.create_task(payer.post(body)) for body in bodies]
                await payer.until_queued(6)
                for _ in range(3):
                    refused(await payer.post(), 429, "queue_full", should_retry="true")
                assert (await payer.balance()).held == picocredits("0.000000048")
                payer.bench.backend.gate.set()
            assert [task.result().status_code for task in waiting] == [200, 200]

    prove(story())


def test_more_calls_than_can_wait_for_a_tokenizer_are_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, limits=Limits(tokenizing_calls_max=0), preload=False) as payer:
            refused(await payer.post(), 429, "queue_full", should_retry="true")

    prove(story())


# -- 500 ----------------------------------------------------------------------------------------


def test_a_call_that_the_engine_refuses_is_not_charged_and_the_next_is_served(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged="0.000000024") as payer:
            payer.bench.backend.refuse = True
            for body in (ONE, RANK):
                refused(await payer.post(body), 500, "inference_failed")
            payer.bench.backend.refuse = False
            assert (await payer.post()).status_code == 200

    prove(story())


def test_a_call_that_takes_too_long_is_given_up_and_not_charged(tmp_path: Path) -> None:
    async def story() -> None:
        soon = Limits(call_seconds_max=0.05)
        async with paying(tmp_path, limits=soon) as payer, engine_held(payer):
            message = refused(await payer.post(), 500, "inference_failed")
            assert "too long" in message

    prove(story())


def test_a_bug_of_ours_is_a_500_without_details_and_is_not_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("a secret of the inside")

    async def story() -> None:
        async with paying(tmp_path) as payer:
            monkeypatch.setattr(EmbedTask, "render", broken)
            assert "secret" not in refused(await payer.post(), 500, "inference_failed")

    prove(story())
    assert "a secret of the inside" in caplog.text


def test_who_cannot_pay_is_refused_before_texts_are_tokenized(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, credit="0") as payer:
            residency = payer.bench.appliance.residency
            gate = threading.Event()
            busy = [residency._threads.submit(gate.wait, DEADLINE_S) for _ in range(2)]
            try:
                long = {"model": EMBED, "input": ["a word " * 1_000] * 3}
                refused(await payer.post(long), 402, "insufficient_credit", should_retry="false")
                documents = {"model": RERANK, "query": "q", "documents": ["a word " * 1_000] * 3}
                answer = await payer.post(documents)
                refused(answer, 402, "insufficient_credit", should_retry="false")
            finally:
                gate.set()
            for each in busy:
                await asyncio.wrap_future(each)
            # What it would cost is told to anybody, and that takes a tokenizer.
            quoted = await payer.post(long, x_dry_run="true")
            assert quoted.json()["units"] > 3

    prove(story())


def test_a_full_engine_refuses_long_texts_before_they_are_tokenized(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, credit="unlimited") as payer:
            threads = payer.bench.appliance.residency._threads
            async with engine_held(payer), asyncio.TaskGroup() as group:
                first = group.create_task(payer.post({"model": EMBED, "input": LONG}))
                await payer.until_queued(200_000)
                gate = threading.Event()
                busy = [threads.submit(gate.wait, DEADLINE_S) for _ in range(2)]
                answer = await payer.post({"model": EMBED, "input": LONG})
                refused(answer, 429, "queue_full", should_retry="true")
                # One that waits longer is let in, and so is a short one of another key.
                gate.set()
                for each in busy:
                    await asyncio.wrap_future(each)
                other = await payer.bench.mint(credit="1")
                theirs = {"authorization": f"Bearer {other.key}"}
                second = group.create_task(payer.post(**theirs))
                payer.bench.backend.gate.set()
            assert first.result().status_code == 200
            assert second.result().status_code == 200

    prove(story())


LONG = [f"{n} " + "word " * 230 for n in range(1_000)]
"""About 230,000 tokens: two minutes by the first guess of the engine's speed."""


# -- 503 ----------------------------------------------------------------------------------------


def test_a_cold_model_is_warming_and_the_call_is_not_charged(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, preload=False) as payer:
            async with loading_held(payer):
                message = refused(await payer.post(), 503, "model_warming", should_retry="true")
                assert "Prefer: wait" in message
                assert (await payer.balance()).held == 0
            assert (await payer.post(prefer="wait=30")).status_code == 200

    prove(story())


def test_only_so_many_calls_may_wait_for_a_cold_model(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(warming_waiters_max=1)
        async with paying(tmp_path, charged=None, preload=False, limits=limits) as payer:
            async with loading_held(payer) as gate, asyncio.TaskGroup() as group:
                first = group.create_task(payer.post(prefer="wait=30"))
                await payer.until_waiting()
                answer = await payer.post(prefer="wait=30")
                refused(answer, 503, "model_warming", should_retry="true")
                gate.set()
            assert first.result().status_code == 200

    prove(story())


def test_a_call_whose_engine_dies_is_not_charged_and_the_model_comes_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged="0.000000024") as payer:
            payer.bench.backend.die = True
            async with loading_held(payer):
                for _ in range(2):  # the call that it dies under, and one while it is loaded again
                    answer = await payer.post()
                    refused(answer, 503, "engine_restarting", should_retry="true")
            assert (await payer.post(prefer="wait=30")).status_code == 200

    prove(story())


def test_calls_that_wait_behind_a_death_are_told_and_not_charged(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            payer.bench.backend.die = True
            async with engine_held(payer), asyncio.TaskGroup() as group:
                words = ("one", "two", "three", "four", "five")
                calls = [group.create_task(payer.post({**ONE, "input": word})) for word in words]
                await payer.until_queued(15)
                payer.bench.backend.gate.set()
            for call in calls:
                refused(call.result(), 503, "engine_restarting", should_retry="true")

    prove(story())


def test_a_server_that_stops_takes_no_new_call_and_finishes_those_it_has(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged="0.000000024") as payer:
            async with engine_held(payer), asyncio.TaskGroup() as group:
                running = group.create_task(payer.post())
                await payer.until_computing()
                payer.bench.appliance.pipeline.draining = True
                refused(await payer.post(), 503, "draining", should_retry="true")
                health = await payer.bench.client.get("/health")
                assert (health.status_code, health.json()["status"]) == (503, "draining")
                payer.bench.backend.gate.set()
            assert running.result().status_code == 200

    prove(story())


# -- the order of refusal -----------------------------------------------------------------------


def test_of_two_faults_the_one_that_is_cheaper_to_find_is_answered(tmp_path: Path) -> None:
    """Key, size, shape, model, limits, price: each call has the fault named and the next one."""

    async def story() -> None:
        async with paying(tmp_path, credit="0", limits=TINY, rpm=1) as payer:
            key, none = payer.auth, {"authorization": "Bearer nothing"}
            shapeless = {"model": "no-such-model", "input": []}
            payer.auth = none
            refused(await payer.post(b"x" * 2_001), 401, "invalid_api_key")
            payer.auth = key
            refused(await payer.post(b"x" * 2_001), 413, "body_too_large")
            refused(await payer.post(shapeless), 400, "invalid_request", param="input")
            for _ in range(2):  # also once the key's one request is used up, which these do not
                answer = await payer.post({**ONE, "model": "no-such-model"})
                refused(answer, 404, "model_not_found", param="model")
                answer = await payer.post({**ONE, "dimensions": 3})
                refused(answer, 400, "unsupported_dimensions", param="dimensions")
                answer = await payer.post()
                if _ == 0:
                    refused(answer, 402, "insufficient_credit", should_retry="false")
            refused(answer, 429, "rate_limited", should_retry="true")

    prove(story())


def test_a_key_without_credit_hears_so_before_the_queue_and_before_a_load(tmp_path: Path) -> None:
    narrow = Limits(request_tokens_max=3, queue_tokens_max=3)

    async def story() -> None:
        async with paying(tmp_path, credit="0", limits=narrow) as payer:
            rich = await payer.bench.key(credit="unlimited")
            async with engine_held(payer), asyncio.TaskGroup() as group:
                poor, payer.auth = payer.auth, rich
                group.create_task(payer.post())
                await payer.until_queued(3)
                refused(await payer.post(), 429, "queue_full", should_retry="true")
                payer.auth = poor
                refused(await payer.post(), 402, "insufficient_credit", should_retry="false")
                payer.bench.backend.gate.set()

    async def cold() -> None:
        async with paying(tmp_path, credit="0", preload=False) as payer, loading_held(payer):
            answer = await payer.post(prefer="wait=30")
            refused(answer, 402, "insufficient_credit", should_retry="false")

    prove(story())
    prove(cold())


# -- Prefer: wait -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=30", "wait=30"),
        ("respond-async, wait=5", "wait=5"),
        ("Wait = 7; foo", "wait=7"),
        ('wait="8"', "wait=8"),
        ("wait=999999", "wait=60"),
    ],
)
def test_a_call_may_wait_for_a_cold_model(tmp_path: Path, prefer: str, applied: str) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, preload=False) as payer:
            async with loading_held(payer) as gate, asyncio.TaskGroup() as group:
                call = group.create_task(payer.post(prefer=prefer))
                await payer.until_waiting()
                assert (await payer.balance()).held == 0, "no money is held while a model loads"
                gate.set()
            assert call.result().status_code == 200
            assert call.result().headers["preference-applied"] == applied

    prove(story())


def test_a_malformed_preference_is_ignored(tmp_path: Path) -> None:
    malformed = (
        "",
        "wait",
        "wait=",
        "wait=-1",
        "wait=1.5",
        "wait=ten",
        "waits=3",
        ",;,=",
        "wait=1 2",
    )

    async def story() -> None:
        async with paying(tmp_path, charged=None, preload=False) as payer:
            async with loading_held(payer):
                for prefer in malformed:
                    answer = await payer.post(prefer=prefer)
                    refused(answer, 503, "model_warming", should_retry="true")
            assert (await payer.post(prefer="wait=30")).status_code == 200
            for prefer in malformed:
                warm = await payer.post(prefer=prefer)
                assert warm.status_code == 200
                assert "preference-applied" not in warm.headers

    prove(story())


def test_a_wait_that_was_too_short_ends_in_warming(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, preload=False) as payer, loading_held(payer):
            answer = await payer.post(prefer="wait=1")
            refused(answer, 503, "model_warming", should_retry="true")

    prove(story())


# -- tiers, dry runs, truncation, and what the headers say --------------------------------------


def test_the_batch_tier_costs_half_and_is_echoed(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged="0.000036036") as payer:
            for body, tier, cost in [
                (ONE, "realtime", "0.000000024"),
                (ONE, "batch", "0.000000012"),
                (RANK, "Realtime", "0.000016"),
                (RANK, "BATCH", "0.000008"),
            ]:
                answer = await payer.post(body, x_tier=tier)
                assert answer.headers["x-tier"] == tier.lower()
                assert answer.headers["x-cost"] == cost
            # Three documents more make the sum a round one.
            documents = {**RANK, "documents": ["a", "b", "c"]}
            answer = await payer.post(documents, x_tier="batch")
            assert answer.headers["x-cost"] == "0.000012"
            assert Decimal(answer.headers["x-balance"]) == 1 - Decimal("0.000036036")

    prove(story())


def test_an_unknown_tier_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path) as payer:
            answer = await payer.post(x_tier="express")
            message = refused(answer, 400, "invalid_request", param="X-Tier")
            assert "'batch'" in message

    prove(story())


def test_a_dry_run_tells_the_price_and_neither_computes_nor_charges(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            long = {"model": EMBED, "input": ["one", "word " * 600]}
            for body, units, unit, cut in [
                (ONE, 3, "tokens", 0),
                (long, 259, "tokens", 1),
                (RANK, 2, "documents", 0),
            ]:
                dry = await payer.post(body, x_dry_run="true")
                assert dry.status_code == 200
                assert payer.bench.backend.computed == []
                assert (await payer.balance()).posted == picocredits("1")
                told = json.loads(dry.content, parse_float=Decimal, parse_int=Decimal)
                assert (told["units"], told["unit"], told["would_truncate"]) == (units, unit, cut)
                assert dry.headers["x-cost"] == "0"
                expected = units * (8_000 if unit == "tokens" else 8_000_000)
                assert told["cost"] * 10**12 == expected
            real = await payer.post(RANK)
            assert Decimal(real.headers["x-cost"]) == told["cost"]
            assert real.json()["usage"]["prompt_tokens"] == told["usage"]["prompt_tokens"]

    prove(story())


def test_a_dry_run_needs_neither_credit_nor_a_loaded_model(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, credit="0", preload=False) as payer:
            answer = await payer.post(x_dry_run="1")
            assert answer.json()["units"] == 3
            assert payer.entries() == []
            refused(
                await payer.post({**ONE, "model": "x"}, x_dry_run="true"),
                404,
                "model_not_found",
                param="model",
            )
            refused(await payer.post(x_dry_run="yes"), 400, "invalid_request", param="X-Dry-Run")

    prove(story())


def test_what_was_cut_is_counted_and_billed_as_computed(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            answer = await payer.post(
                {"model": EMBED, "input": ["word " * 600, "one", "é " * 9_999]}
            )
            assert answer.headers["x-truncated"] == "2"
            assert answer.json()["usage"] == {
                "prompt_tokens": 515,
                "total_tokens": 515,
                "truncated": 2,
            }
            assert Decimal(answer.headers["x-cost"]) == 515 * Decimal("0.000000008")
            whole = await payer.post(ONE)
            assert "x-truncated" not in whole.headers
            assert "truncated" not in whole.json()["usage"]

    prove(story())


def test_the_rate_headers_say_what_is_left(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None, rpm=10, tpm=60) as payer:
            await payer.post()
            answer = await payer.post()
            got = {k: v for k, v in answer.headers.items() if k.startswith("x-ratelimit-")}
            assert got == {
                "x-ratelimit-limit-requests": "10",
                "x-ratelimit-remaining-requests": "8",
                "x-ratelimit-reset-requests": "12s",
                "x-ratelimit-limit-tokens": "60",
                "x-ratelimit-remaining-tokens": "54",
                "x-ratelimit-reset-tokens": "6s",
            }

    prove(story())


def test_a_key_without_rates_gets_no_rate_headers(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            answer = await payer.post()
            assert [name for name in answer.headers if name.startswith("x-ratelimit-")] == []

    prove(story())


def test_the_timing_header_has_every_stage(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            timing = (await payer.post()).headers["server-timing"].split(", ")
            assert [part.partition(";")[0] for part in timing] == [
                "auth",
                "tokenize",
                "queue",
                "inference",
                "settle",
            ]
            assert all(re.fullmatch(r"[a-z]+;dur=\d+\.\d{3}", part) for part in timing)

    prove(story())


def test_the_fingerprint_stays_while_the_model_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            prints = [
                (await payer.post(body)).headers["x-model-fingerprint"] for body in (ONE, ONE, RANK)
            ]
            assert re.fullmatch(r"[0-9a-f]{16}", prints[0])
            assert prints[0] == prints[1] != prints[2]

    prove(story())


def test_the_request_id_is_the_clients_own_if_it_can_be_shown(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            for own in ("abc-123", "!", "x" * 128):
                for body in (ONE, {**ONE, "input": []}):
                    answer = await payer.post(body, x_request_id=own)
                    assert answer.headers["x-request-id"] == own
            ours = [
                (await payer.post(x_request_id=bad)).headers["x-request-id"]
                for bad in ("", " ", "a b", "x" * 129, "\t")
            ]
            assert all(re.fullmatch(r"req_[0-9a-f]{24}", each) for each in ours)
            assert len(set(ours)) == len(ours)

    prove(story())


def test_equal_scores_are_in_the_order_of_the_documents(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged=None) as payer:
            body = {**RANK, "documents": ["same"] * 40, "raw_scores": True}
            results = (await payer.post(body)).json()["results"]
            assert len({result["relevance_score"] for result in results}) == 1
            assert [result["index"] for result in results] == list(range(40))

    prove(story())


# -- a client that leaves -----------------------------------------------------------------------


async def abandoned(payer: Payer, once: Callable[[], Awaitable[None]], **headers: str) -> list[Any]:
    """Make a call as a server would and hang up once `once` has returned; return what was sent."""
    sent: list[Any] = []
    messages: list[dict[str, Any]] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": json.dumps(ONE).encode(), "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()  # for ever: it was told already
        message = messages.pop()
        if message["type"] == "http.disconnect":
            await once()
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"host": "localhost", **payer.auth, **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/embeddings",
        "raw_path": b"/v1/embeddings",
        "root_path": "",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "server": ("x", 80),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    app: Any = payer.bench.appliance.app
    await app(scope, receive, send)
    return sent


def test_a_client_that_leaves_while_it_is_queued_pays_nothing_and_is_not_computed(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with paying(tmp_path, charged="0.000000024") as payer:
            async with engine_held(payer), asyncio.TaskGroup() as group:
                first = group.create_task(payer.post({**ONE, "input": "two"}))
                await payer.until_computing()
                sent = await abandoned(payer, lambda: payer.until_queued(6))
                assert sent[0]["status"] == 499
                # Its money is free before the engine has moved at all.
                balance = await payer.balance()
                assert balance.held == picocredits("0.000000024")
                payer.bench.backend.gate.set()
            assert first.result().status_code == 200
            assert payer.bench.backend.computed == [[3]]

    prove(story())


def test_a_client_that_leaves_while_its_call_is_computed_pays_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, concurrency=1) as payer, engine_held(payer):
            for _ in range(2):  # twice: its place among the key's calls is free again, too
                sent = await abandoned(payer, payer.until_computing)
                assert sent[0]["status"] == 499
                assert (await payer.balance()).held == 0

    prove(story())


def test_a_client_that_leaves_while_the_model_is_loaded_pays_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with paying(tmp_path, preload=False) as payer, loading_held(payer):
            sent = await abandoned(payer, payer.until_waiting, prefer="wait=30")
            assert sent[0]["status"] == 499
            assert [sum(entry.waiters.values()) for entry in payer.entries()] == [0]

    prove(story())


def test_a_connection_that_is_cut_frees_its_hold_on_a_real_server(server: Server) -> None:
    import socket
    import time

    minted = server.mint(name="leaver", credit="1")
    body = json.dumps({"model": EMBED, "input": ["word " * 500] * 256}).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {minted['key']}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()
    with server.admin() as admin:

        def credit() -> Decimal:
            return Decimal(str(admin.get(f"/keys/{minted['id']}").json()["credit"]))

        def until(wanted: Callable[[Decimal], bool]) -> None:
            deadline = time.monotonic() + DEADLINE_S
            while not wanted(credit()):
                assert time.monotonic() < deadline

        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head + body)
            until(lambda credit: credit < 1)  # its price is held: minutes of work wait
        until(lambda credit: credit == 1)
        assert admin.get(f"/keys/{minted['id']}").json()["spent_today"] == 0
