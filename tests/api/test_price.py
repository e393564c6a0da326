"""A price that an operator changes: for new calls, exact, and kept."""

import asyncio
from decimal import Decimal

import pytest

from appliance.core.errors import InvalidRequest, ModelNotFound
from appliance.wire.models import PriceOrder
from tests.appliance import bench
from tests.money.audit import Books
from tests.server import EMBED

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
            held = "SELECT COUNT(*) FROM holds"
            while await on.books.writer.run(  # noqa: ASYNC110 - the books ring no bell
                lambda c: c.execute(held).fetchone()[0] == 0
            ):
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
