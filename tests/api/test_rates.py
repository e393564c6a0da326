"""What a key's holder is told of its rates, its budget and its use."""

import asyncio
import json
import threading
from decimal import Decimal

import pytest

from appliance.core.limits import Limits
from appliance.wire.keys import TopUpOrder
from tests.api import contract
from tests.appliance import bench
from tests.server import EMBED, RERANK

DAY = 86_400
ONE = {"model": EMBED, "input": "one"}  # 3 tokens, 24 nanocredits
EIGHT = {"model": EMBED, "input": "one two three four five six"}  # 8 tokens
PRICE = Decimal("0.000000024")
TINY = Limits(body_bytes_max=2_000, text_bytes_max=1_000)


def prove(path, story, **settings):
    async def run():
        async with asyncio.timeout(60), bench(path / "data", **settings) as on:
            contract.watch(on.client)
            await story(on)

    asyncio.run(run())


def rates(answer):
    return {name for name in answer.headers if name.startswith("x-ratelimit-")}


ALL = {
    f"x-ratelimit-{what}-{noun}"
    for what in ("limit", "remaining", "reset")
    for noun in ("requests", "tokens")
}

REFUSED = {
    400: {"content": b"{"},
    402: {"json": {"model": RERANK, "query": "a", "documents": ["b"] * 20}},
    404: {"json": {"model": "nothing/here", "input": "one"}},
    413: {"content": b"x" * 3_000},
}
"""A call that ends in each status once its key is known."""


@pytest.mark.parametrize("status", REFUSED)
def test_a_refusal_of_an_authenticated_call_tells_its_rates(tmp_path, status):
    async def story(on):
        auth = await on.key(rpm=10, tpm=1_000, credit="0.000000001")
        path = "/v1/rerank" if status == 402 else "/v1/embeddings"
        sent = dict(REFUSED[status])
        if status == 413:
            sent["content"] = chunks(sent["content"])  # its length is not told before the key
        answer = await on.client.post(path, headers=auth, **sent)
        assert answer.status_code == status
        assert rates(answer) == ALL

    prove(tmp_path, story, limits=TINY)


async def chunks(content):
    yield content


@pytest.mark.parametrize("rate", [{"rpm": 1}, {"tpm": 3}, {"rpm": 1, "tpm": 3}])
def test_who_is_limited_and_waits_as_told_is_served_next_and_all_of_it_is_in_the_headers(
    tmp_path, rate
):
    async def story(on):
        auth = await on.key(**rate)
        for _ in range(3):
            assert (await on.client.post("/v1/embeddings", json=ONE, headers=auth)).is_success
            answer = await on.client.post("/v1/embeddings", json=ONE, headers=auth)
            assert answer.status_code == 429
            assert answer.headers["x-should-retry"] == "true"
            wait = int(answer.headers["retry-after"])
            assert 1 <= wait <= 60
            for noun, name in (("requests", "rpm"), ("tokens", "tpm")):
                if name in rate:
                    assert answer.headers[f"x-ratelimit-limit-{noun}"] == str(rate[name])
                    assert answer.headers[f"x-ratelimit-remaining-{noun}"] == "0"
            on.clock.advance(wait - 1)
            refused = await on.client.post("/v1/embeddings", json=ONE, headers=auth)
            assert refused.status_code == 429
            on.clock.advance(int(refused.headers["retry-after"]))

    prove(tmp_path, story)


@pytest.mark.parametrize("limit", [{"tpm": 10}, {"rpm": 1}])
def test_a_call_that_the_server_refuses_for_its_own_sake_spends_none_of_its_keys_limits(
    tmp_path, limit, monkeypatch
):
    """A cold model's 503 is followed by an answer, and not by a 429 for what was refused."""

    async def story(on):
        gate, open_model = threading.Event(), on.appliance.loader.open_model

        def gated(spec, progress):
            gate.wait(60)
            return open_model(spec, progress)

        monkeypatch.setattr(on.appliance.loader, "open_model", gated)
        auth = await on.key(**limit)
        cold = await on.client.post("/v1/embeddings", json=EIGHT, headers=auth)
        assert (cold.status_code, cold.json()["error"]["code"]) == (503, "model_warming")
        gate.set()
        await on.appliance.preload()
        assert (await on.client.post("/v1/embeddings", json=EIGHT, headers=auth)).status_code == 200
        spent = await on.client.post("/v1/embeddings", json=EIGHT, headers=auth)
        assert (spent.status_code, spent.json()["error"]["code"]) == (429, "rate_limited")

    prove(tmp_path, story, preload=False)


def test_a_call_that_cannot_pay_spends_none_of_its_tokens(tmp_path):
    async def story(on):
        minted = await on.mint(credit="0", tpm=10)
        auth = {"authorization": f"Bearer {minted.key}"}
        assert (await on.client.post("/v1/embeddings", json=EIGHT, headers=auth)).status_code == 402
        await on.appliance.admin.keys.top_up(minted.id, TopUpOrder(credit="1"))
        assert (await on.client.post("/v1/embeddings", json=EIGHT, headers=auth)).status_code == 200

    prove(tmp_path, story)


def test_a_days_budget_tells_its_rates_too_and_when_the_next_day_begins(tmp_path):
    async def story(on):
        auth = await on.key(daily_budget=f"{PRICE:f}", rpm=10)
        assert (await on.client.post("/v1/embeddings", json=ONE, headers=auth)).is_success
        answer = await on.client.post("/v1/embeddings", json=ONE, headers=auth)
        assert answer.json()["error"]["code"] == "daily_budget_exceeded"
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-ratelimit-remaining-requests"] == "8"
        on.clock.advance(int(answer.headers["retry-after"]))
        assert (await on.client.post("/v1/embeddings", json=ONE, headers=auth)).is_success

    prove(tmp_path, story)


def test_a_call_of_more_tokens_than_a_minute_has_is_told_to_be_split(tmp_path):
    async def story(on):
        auth = await on.key(tpm=2)
        answer = await on.client.post("/v1/embeddings", json=ONE, headers=auth)
        assert answer.status_code == 400
        assert "split it" in answer.json()["detail"]
        assert (await on.client.get("/v1/key", headers=auth)).json()["data"]["usage"] == 0

    prove(tmp_path, story)


def test_a_refusal_before_the_key_is_known_tells_no_rates(tmp_path):
    async def story(on):
        await on.key(rpm=1)
        assert rates(await on.client.post("/v1/embeddings", json=ONE)) == set()

    prove(tmp_path, story, preload=False)


# -- GET /v1/key --------------------------------------------------------------------------------


async def current(on, auth):
    answer = await on.client.get("/v1/key", headers=auth)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return json.loads(answer.content, parse_float=Decimal)["data"]


def test_a_key_looks_itself_up_in_openrouters_words(tmp_path):
    async def story(on):
        minted = await on.mint(credit="5", rpm=60, expires="30d")
        auth = {"authorization": f"Bearer {minted.key}"}
        assert (await on.client.post("/v1/embeddings", json=ONE, headers=auth)).is_success
        assert await current(on, auth) == {
            "label": f"{minted.key[:7]}…{minted.key[-4:]}",
            "limit": 5,
            "limit_reset": None,
            "limit_remaining": 5 - PRICE,
            "usage": PRICE,
            "usage_daily": PRICE,
            "usage_weekly": PRICE,
            "usage_monthly": PRICE,
            "is_free_tier": False,
            "rate_limit": {"requests": 60, "interval": "60s"},
            "expires_at": minted.expires,
        }

    prove(tmp_path, story)


def test_what_was_used_counts_for_its_day_its_week_and_its_month(tmp_path):
    async def story(on):
        on.clock.wall = 1_790_553_600 * 1_000_000  # Monday, 28 September 2026, 00:00 UTC
        auth = await on.key()
        used = []
        for days in (0, 2, 1, 4):  # Monday, Wednesday, Thursday (1 October), the next Monday
            on.clock.advance(days * DAY)
            assert (await on.client.post("/v1/embeddings", json=ONE, headers=auth)).is_success
            view = await current(on, auth)
            used.append(
                [view[f"usage{of}"] / PRICE for of in ("_daily", "_weekly", "_monthly", "")]
            )
        assert used == [[1, 1, 1, 1], [1, 2, 2, 2], [1, 3, 1, 3], [1, 1, 2, 4]]

    prove(tmp_path, story)


@pytest.mark.parametrize(
    ("order", "limit", "reset", "remaining"),
    [
        ({"credit": "unlimited"}, None, None, None),
        ({"credit": "1"}, 1, None, 1),
        ({"credit": "1", "daily_budget": "0.25"}, Decimal("0.25"), "daily", Decimal("0.25")),
        ({"credit": "0.1", "daily_budget": "0.25"}, Decimal("0.25"), "daily", Decimal("0.1")),
        ({"credit": "unlimited", "daily_budget": "2"}, 2, "daily", 2),
    ],
)
def test_the_limit_is_the_budget_or_the_grant_and_what_remains_the_smaller_of_both(
    tmp_path, order, limit, reset, remaining
):
    async def story(on):
        view = await current(on, await on.key(**order))
        assert [view[name] for name in ("limit", "limit_reset", "limit_remaining")] == [
            limit,
            reset,
            remaining,
        ]
        assert view["rate_limit"]["requests"] == -1
        assert view["usage"] == 0

    prove(tmp_path, story, preload=False)


def test_the_published_description_names_every_field_that_is_answered(tmp_path):
    async def story(on):
        document = (await on.client.get("/v1/openapi.json")).json()
        auth = await on.key()
        for path in ("/v1/key", "/account"):
            schema = document["paths"][path]["get"]["responses"]["200"]["content"]
            named = contract.resolved(schema["application/json"]["schema"], document)["properties"]
            told = (await on.client.get(path, headers=auth)).json()
            if path == "/v1/key":
                named, told = named["data"]["properties"], told["data"]
            assert set(named) == set(told)

    prove(tmp_path, story, preload=False)
