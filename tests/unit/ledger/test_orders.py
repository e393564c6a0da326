"""Orders of the operator that are sent twice: a key is made once, and credits are added once."""

import asyncio
from decimal import Decimal

import pytest

from appliance.core.errors import AlreadyMinted, IdempotencyKeyReused, InvalidRequest
from appliance.wire.keys import MintOrder, TopUpOrder
from tests.appliance import bench
from tests.money.audit import Books

HOUR = 3600


def prove(tmp_path, story):
    async def run():
        async with bench(tmp_path / "data", preload=False) as on:
            await story(on, on.appliance.admin.keys)

    asyncio.run(run())
    assert Books(tmp_path / "data").problems == []


def operator(on):
    return {"authorization": f"Bearer {on.directory.admin_token()}"}


def test_an_order_to_mint_that_is_sent_twice_makes_one_key(tmp_path):
    async def story(on, keys):
        order = MintOrder(name="team", credit="2", idempotency_key="a")
        made = await keys.mint(order)
        with pytest.raises(AlreadyMinted) as told:
            await keys.mint(order)
        assert told.value.key_id == made.id
        assert made.id in told.value.message
        assert [(each.id, each.credit) for each in (await keys.all()).data] == [(made.id, 2)]
        with pytest.raises(IdempotencyKeyReused):
            await keys.mint(MintOrder(name="team", credit="3", idempotency_key="a"))
        assert (await keys.mint(MintOrder(name="team", credit="2", idempotency_key="b"))).id
        on.clock.advance(24 * HOUR)
        assert (await keys.mint(order)).id != made.id, "a day later it is another order"
        assert len((await keys.all()).data) == 3

    prove(tmp_path, story)


def test_a_repeated_order_is_known_even_if_it_could_not_be_carried_out_now(tmp_path):
    async def story(on, keys):
        order = MintOrder(name="team", models=["all-minilm-l6-v2"], idempotency_key="a")
        made = await keys.mint(order)
        on.books.keyring._keys_max = 1
        with pytest.raises(AlreadyMinted) as told:
            await keys.mint(order)
        assert told.value.key_id == made.id

    prove(tmp_path, story)


def test_a_top_up_that_is_sent_twice_adds_credits_once(tmp_path):
    async def story(on, keys):
        one, two = [await on.mint(credit="1") for _ in range(2)]
        order = TopUpOrder(credit="5", idempotency_key="a")
        for _ in range(3):
            assert (await keys.top_up(one.id, order)).credit == Decimal(6)
        with pytest.raises(IdempotencyKeyReused):
            await keys.top_up(two.id, order)
        with pytest.raises(IdempotencyKeyReused):
            await keys.top_up(one.id, TopUpOrder(credit="6", idempotency_key="a"))
        assert (await keys.top_up(one.id, TopUpOrder(credit="5"))).credit == Decimal(11)
        assert (await keys.show(two.id)).credit == Decimal(1)

    prove(tmp_path, story)


def test_orders_sent_at_the_same_moment_are_carried_out_once(tmp_path):
    async def story(on, keys):
        minted = await on.mint(credit="1")
        order = TopUpOrder(credit="5", idempotency_key="a")
        await asyncio.gather(*(keys.top_up(minted.id, order) for _ in range(10)))
        assert (await keys.show(minted.id)).credit == Decimal(6)
        mint = MintOrder(name="x", idempotency_key="m")
        told = await asyncio.gather(*(keys.mint(mint) for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(each, AlreadyMinted) for each in told) == 9
        assert len((await keys.all()).data) == 2

    prove(tmp_path, story)


def test_an_order_that_was_refused_is_not_remembered(tmp_path):
    async def story(on, keys):
        minted = await on.mint(credit="1")
        with pytest.raises(InvalidRequest):
            await keys.top_up(minted.id, TopUpOrder(credit="9000000", idempotency_key="a"))
        with pytest.raises(InvalidRequest):
            await keys.top_up(minted.id, TopUpOrder(credit="9000000", idempotency_key="a"))
        for wrong in ("", "a b", "x" * 256, "é"):
            with pytest.raises(InvalidRequest) as told:
                await keys.top_up(minted.id, TopUpOrder(credit="1", idempotency_key=wrong))
            assert told.value.param == "Idempotency-Key"
        assert (await keys.show(minted.id)).credit == Decimal(1)

    prove(tmp_path, story)


def test_over_http_the_header_counts_and_nothing_of_it_is_written_down(tmp_path):
    async def story(on, keys):
        headers = {**operator(on), "idempotency-key": "header-of-the-order"}
        order = {"name": "team", "credit": "2"}
        made = await on.client.post("/admin/v1/keys", json=order, headers=headers)
        again = await on.client.post("/admin/v1/keys", json=order, headers=headers)
        assert (made.status_code, again.status_code) == (201, 409)
        assert again.json()["error"]["code"] == "already_minted"
        path = f"/admin/v1/keys/{made.json()['id']}/topup"
        for _ in range(2):
            more = await on.client.post(
                path, json={"credit": "1", "idempotency_key": "of-the-body"}, headers=headers
            )
            assert more.json()["credit"] == 3
        written = b"".join(
            each.read_bytes() for each in on.directory.path.rglob("*") if each.is_file()
        )
        assert b"header-of-the-order" not in written
        assert b"of-the-body" not in written

    prove(tmp_path, story)
