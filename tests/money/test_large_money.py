"""More money than 64 bits carry, in all and in one account: served, or refused in plain words."""

import asyncio
from decimal import Decimal

import pytest

from appliance.core.errors import InvalidRequest
from appliance.core.units import PICOCREDITS_PER_CREDIT
from appliance.ledger import audit, ledger, prices
from appliance.ledger.entry import Purchase
from appliance.ledger.transfer import POSTED_MAX
from appliance.pricing.tariff import Tariff
from appliance.wire.keys import TopUpOrder
from tests.appliance import bench
from tests.money.audit import Books

MILLION = 1_000_000 * PICOCREDITS_PER_CREDIT
COSTLY = Tariff("rerank", realtime=Decimal(1000), batch=Decimal(1000))
EACH = COSTLY.each("realtime")


def play(tmp_path, story):
    async def run():
        async with asyncio.timeout(60), bench(tmp_path / "data", preload=False) as on:
            await story(on)

    asyncio.run(run())
    return Books(tmp_path / "data")


async def spend(on, key_id, credits_):
    """Charge a key so many whole credits, and deliver the answer."""

    now_us = on.clock.wall_us()
    version = on.books.writer.call(lambda c: prices.publish(c, "m", COSTLY, now_us))
    purchase = Purchase(key_id, "req", "m", "realtime", credits_, EACH, version, None)
    hold = on.books.balances.hold(purchase, now_us)

    def work(connection):
        ledger.settle_hold(connection, hold, now_us)
        connection.execute("DELETE FROM undelivered")

    on.books.writer.call(work)
    return on.books.balances.balance(key_id, now_us)


def test_grants_and_charges_go_on_beyond_what_one_account_holds(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        for number in range(3):
            minted = await on.mint(name=f"n{number}", credit="1000000")
            for _ in range(6):
                await keys.top_up(minted.id, TopUpOrder(credit="1000000"))
            balance = await spend(on, minted.id, 6_500_000)
            assert balance.posted == MILLION // 2
        report = await on.appliance.admin.usage.report("day", "all", "all", "all")
        assert report.total.credits == 19_500_000
        assert (await on.client.get("/metrics")).status_code == 200
        assert await on.books.writer.run(audit.problems) == []

    books = play(tmp_path, story)
    assert books.problems == []
    # It opens again, with the sales of more than 64 bits on this day.
    assert play(tmp_path, lambda on: on.books.writer.run(lambda _: None)).problems == []


def test_what_a_key_cannot_hold_is_refused_by_name_with_what_it_can(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint(credit="1000000")
        for _ in range(7):
            await keys.top_up(minted.id, TopUpOrder(credit="1000000"))
        headers = {"authorization": f"Bearer {on.directory.admin_token()}"}
        answer = await on.client.post(
            f"/admin/v1/keys/{minted.id}/topup", json={"credit": "1"}, headers=headers
        )
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (
            400,
            "invalid_request",
            "credit",
        )
        assert "room for 0" in error["message"]
        assert "mint another key" in error["message"]

    assert play(tmp_path, story).problems == []


def test_an_unlimited_key_is_refused_before_its_account_is_full_and_held_amounts_count(tmp_path):
    async def story(on):
        minted = await on.mint(credit="unlimited")
        await spend(on, minted.id, 7_000_000)
        on.clock.advance(86_400)
        await spend(on, minted.id, 1_000_000)
        with pytest.raises(InvalidRequest, match="all that one key's account"):
            await spend(on, minted.id, 1)
        # Credit makes room again.
        await on.appliance.admin.keys.top_up(minted.id, TopUpOrder(credit="1"))
        await spend(on, minted.id, 1)
        found = on.books.balances.balance(minted.id, on.clock.wall_us())
        assert found.posted == -POSTED_MAX

    assert play(tmp_path, story).problems == []


def test_no_number_of_an_order_is_an_error_of_the_server(tmp_path):
    async def story(on):
        headers = {"authorization": f"Bearer {on.directory.admin_token()}"}
        huge = ("9" * 30, "1e400", "1e-400", "9223372036854775808", str(2**63), "NaN", "-1")
        minted = await on.mint(credit="1")
        for text in huge:
            for body in ({"name": "n", "credit": text}, {"name": "n", "daily_budget": text}):
                answer = await on.client.post("/admin/v1/keys", json=body, headers=headers)
                assert answer.status_code == 400, (body, answer.text)
            answer = await on.client.post(
                f"/admin/v1/keys/{minted.id}/topup", json={"credit": text}, headers=headers
            )
            assert answer.status_code == 400, (text, answer.text)
        for field in ("rpm", "tpm", "concurrency"):
            for number in (2**63, 2**70, -1):
                body = {"name": "n", "credit": "1", field: number}
                answer = await on.client.post("/admin/v1/keys", json=body, headers=headers)
                assert answer.status_code == 400, (body, answer.text)

    assert play(tmp_path, story).problems == []
