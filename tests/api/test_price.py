"""A price that an operator changes: for new calls, exact, and kept."""

import asyncio
from decimal import Decimal

import pytest

from appliance.core.errors import InvalidRequest, ModelNotFound
from appliance.pipeline import LOOK_S
from appliance.wire.models import PriceOrder
from tests.appliance import bench
from tests.money.audit import Books
from tests.server import EMBED, RERANK

BODY = {"model": EMBED, "input": "five words are quite enough"}
TOKENS = 7


def test_new_calls_pay_the_new_price_and_one_that_is_computed_keeps_the_old_one(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            header = await on.key()

            async def cost(**headers):
                answer = await on.client.post(
                    "/v1/embeddings", json=BODY, headers={**header, **headers}
                )
                return Decimal(answer.headers["x-cost"]) * 1_000_000 / TOKENS

            assert await cost() == Decimal("0.008")
            on.backend.gate.clear()
            begun = asyncio.create_task(cost())
            while not on.books.balances.holds_open:  # noqa: ASYNC110 - they ring no bell
                await asyncio.sleep(0)
            view = await on.appliance.admin.models.price(
                PriceOrder(id="all-minilm-l6-v2", realtime="2", batch="0.5")
            )
            assert (view.id, view.pricing.realtime, view.pricing.batch) == (
                EMBED,
                2,
                Decimal("0.5"),
            )
            on.backend.gate.set()
            assert await begun == Decimal("0.008")
            assert await cost() == 2
            assert await cost(**{"x-tier": "batch"}) == Decimal("0.5")
            await on.appliance.admin.models.price(PriceOrder(id=EMBED, realtime="3.25"))
        # And after a restart; without a price for batch it is half.
        async with bench(tmp_path / "data") as on:
            view = await on.appliance.admin.models.show(EMBED)
            assert (view.pricing.realtime, view.pricing.batch) == (
                Decimal("3.25"),
                Decimal("1.625"),
            )
            assert view.pricing.unit == "1M tokens"

    asyncio.run(scenario())
    assert Books(tmp_path / "data").problems == []


@pytest.mark.parametrize("price", ["", "-1", "1e3", "NaN", "free", "0.0000000000001", "1001"])
def test_a_price_that_the_books_cannot_carry_is_refused_and_changes_nothing(tmp_path, price):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            with pytest.raises(InvalidRequest) as refused:
                await on.appliance.admin.models.price(PriceOrder(id=EMBED, realtime=price))
            assert refused.value.param == "realtime"
            assert not on.directory.catalog.exists()
            view = await on.appliance.admin.models.show(EMBED)
            assert view.pricing.realtime == Decimal("0.008")

    asyncio.run(scenario())


def test_an_unknown_model_has_no_price(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            with pytest.raises(ModelNotFound):
                await on.appliance.admin.models.price(PriceOrder(id="nobody", realtime="1"))

    asyncio.run(scenario())


# -- documents by their tokens ---------------------------------------------------------------------

OWN = """schema = 1
[[model]]
id = "{model}"
price = {{ unit = "1k documents", realtime = 1.0, tokens_per_document = {each} }}
"""


def ranking(*documents):
    return {"model": RERANK, "query": "one two", "documents": list(documents)}


def catalogued(path, each):
    path.mkdir()
    (path / "models.toml").write_text(OWN.format(model=RERANK, each=each))


def test_a_long_document_costs_as_many_as_it_begins_to_fill(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            header = await on.key(credit="1")
            body = ranking("a", "word " * 38, "word " * 39)
            dry = await on.client.post(
                "/v1/rerank", json=body, headers={**header, "x-dry-run": "true"}
            )
            answer = await on.client.post("/v1/rerank", json=body, headers=header)
            # Framed by two special tokens: 3, 40 and 41 tokens; at 20 each 1, 2 and 3 documents.
            assert answer.json()["usage"]["documents"] == dry.json()["units"] == 6
            assert Decimal(answer.headers["x-cost"]) == Decimal(str(dry.json()["cost"]))
            assert Decimal(answer.headers["x-cost"]) == Decimal("0.006")
            models = {
                each["id"]: each for each in (await on.client.get("/v1/models")).json()["data"]
            }
            assert models[RERANK]["pricing"]["tokens_per_document"] == 20
            assert "tokens_per_document" not in models[EMBED]["pricing"]
            # A new price leaves it as it is.
            await on.appliance.admin.models.price(PriceOrder(id=RERANK, realtime="2"))
            answer = await on.client.post("/v1/rerank", json=body, headers=header)
            assert Decimal(answer.headers["x-cost"]) == Decimal("0.012")

    catalogued(tmp_path / "data", 20)
    asyncio.run(scenario())
    books = Books(tmp_path / "data")
    assert books.problems == []


def test_a_document_without_such_a_price_costs_one_however_long(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            answer = await on.client.post(
                "/v1/rerank", json=ranking("a", "word " * 200), headers=await on.key()
            )
            each = on.appliance.models.catalog.find(RERANK).tariff.each("realtime")
            assert Decimal(answer.headers["x-cost"]) * 10**12 == 2 * each
            assert "documents" not in answer.json()["usage"]

    asyncio.run(scenario())


def test_tokens_per_document_go_with_rerank(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    (path / "models.toml").write_text(
        f'schema = 1\n[[model]]\nid = "{EMBED}"\n'
        'price = { unit = "1M tokens", realtime = 1.0, tokens_per_document = 5 }\n'
    )

    async def scenario():
        async with bench(path, preload=False) as on:
            assert "price.tokens_per_document" in (on.appliance.models.fault.message or "")

    asyncio.run(scenario())


# -- the batch tier's delay ------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch):
    """Return the waits of the pipeline; nobody waits."""
    waits = []
    sleep = asyncio.sleep

    async def noted(seconds):
        if seconds == LOOK_S:
            waits.append(seconds)
        await sleep(0 if seconds == LOOK_S else seconds)

    monkeypatch.setattr("asyncio.sleep", noted)
    return waits


def test_a_batch_call_waits_as_long_as_the_operator_chose_and_no_other_does(tmp_path, slept):
    async def scenario():
        async with bench(tmp_path / "data", batch_delay_s=3) as on:
            header = await on.key()
            assert (await on.client.post("/v1/embeddings", json=BODY, headers=header)).is_success
            assert sum(slept) == 0
            batch = {**header, "x-tier": "batch"}
            assert (await on.client.post("/v1/embeddings", json=BODY, headers=batch)).is_success
            assert sum(slept) == 3

    asyncio.run(scenario())


def test_a_server_that_stops_lets_no_call_wait_for_its_delay(tmp_path, slept, monkeypatch):
    async def scenario():
        async with bench(tmp_path / "data", batch_delay_s=200) as on:
            batch = {**await on.key(), "x-tier": "batch"}
            sleep = asyncio.sleep

            async def stops(seconds):
                on.appliance.pipeline.draining |= seconds == LOOK_S
                await sleep(seconds)

            monkeypatch.setattr("asyncio.sleep", stops)
            answer = await on.client.post("/v1/embeddings", json=BODY, headers=batch)
            assert answer.status_code == 200
            assert sum(slept) == LOOK_S

    asyncio.run(scenario())
