"""Many clients race for a balance that pays for exactly K calls."""

import asyncio
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.client import HTTPConnection

import pytest

from appliance.core.units import credits_text, picocredits
from tests.appliance import bench
from tests.money.audit import Books
from tests.server import EMBED, RERANK

CLIENTS = 64
ROUNDS = 10
CALLS = {
    "embeddings": ("/v1/embeddings", {"model": EMBED, "input": "who pays for this?"}),
    "rerank": ("/v1/rerank", {"model": RERANK, "query": "q", "documents": ["a", "b", "c"]}),
}


async def price_of(bench, header, call):
    path, body = call
    answer = await bench.client.post(path, json=body, headers={**header, "x-dry-run": "true"})
    assert answer.status_code == 200, answer.text
    return picocredits(str(Decimal(answer.text.partition('"cost":')[2].partition(",")[0])))


async def race(bench, header, call):
    """Send one call from each client at the same moment; return the answers."""
    path, body = call
    start = asyncio.Event()

    async def client():
        await start.wait()
        return await bench.client.post(path, json=body, headers=header)

    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    await asyncio.sleep(0)
    start.set()
    return await asyncio.gather(*clients)


def count(answers):
    statuses = [answer.status_code for answer in answers]
    return {status: statuses.count(status) for status in set(statuses)}


@pytest.mark.parametrize("task", CALLS)
def test_a_balance_for_k_calls_serves_exactly_k_of_64_and_ends_at_zero(tmp_path, task):
    source = random.Random(f"race {task}")

    async def scenario():
        async with bench(tmp_path / "data") as on:
            price = await price_of(on, await on.key(), CALLS[task])
            assert price > 0
            for affordable in (1, CLIENTS - 1, *source.sample(range(2, CLIENTS - 1), ROUNDS - 2)):
                minted = await on.mint(credit=credits_text(affordable * price))
                header = {"authorization": f"Bearer {minted.key}"}
                answers = await race(on, header, CALLS[task])
                assert count(answers) == {200: affordable, 402: CLIENTS - affordable}
                for answer in answers:
                    if answer.status_code == 402:
                        assert answer.json()["error"]["code"] == "insufficient_credit"
                        assert "retry-after" not in answer.headers
                paid = [each for each in answers if each.status_code == 200]
                assert {each.headers["x-cost"] for each in paid} == {credits_text(price)}
                view = await on.appliance.admin.keys.show(minted.id)
                assert view.credit == 0
                assert not on.books.balances.held()
                assert picocredits(view.spent_today) == affordable * price

    asyncio.run(scenario())
    books = Books(tmp_path / "data")
    assert books.problems == []
    assert set(books.charges.values()) == {1}


def test_what_falls_short_by_one_picocredit_does_not_pay_for_another_call(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            price = await price_of(on, await on.key(), CALLS["embeddings"])
            minted = await on.mint(credit=credits_text(5 * price - 1))
            header = {"authorization": f"Bearer {minted.key}"}
            answers = await race(on, header, CALLS["embeddings"])
            assert count(answers) == {200: 4, 402: CLIENTS - 4}
            assert picocredits((await on.appliance.admin.keys.show(minted.id)).credit) == price - 1

    asyncio.run(scenario())


def test_a_daily_budget_for_k_calls_serves_exactly_k_of_64_and_again_tomorrow(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            price = await price_of(on, await on.key(), CALLS["embeddings"])
            for credit in ("unlimited", "1"):
                header = await on.key(credit=credit, daily_budget=credits_text(7 * price))
                for _ in range(3):
                    answers = await race(on, header, CALLS["embeddings"])
                    assert count(answers) == {200: 7, 429: CLIENTS - 7}
                    refused = next(each for each in answers if each.status_code == 429)
                    assert refused.json()["error"]["code"] == "daily_budget_exceeded"
                    assert refused.headers["x-should-retry"] == "false"
                    on.clock.advance(int(refused.headers["retry-after"]))

    asyncio.run(scenario())


def test_credits_added_in_the_middle_of_a_race_buy_exactly_what_they_pay_for(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            price = await price_of(on, await on.key(), CALLS["embeddings"])
            minted = await on.mint(credit=credits_text(10 * price))
            header = {"authorization": f"Bearer {minted.key}"}
            from appliance.wire.keys import TopUpOrder

            order = TopUpOrder(credit=credits_text(price))
            first, *_ = await asyncio.gather(
                race(on, header, CALLS["embeddings"]),
                *(on.appliance.admin.keys.top_up(minted.id, order) for _ in range(10)),
            )
            second = await race(on, header, CALLS["embeddings"])
            served = count(first)[200] + count(second).get(200, 0)
            assert served == 20
            assert (await on.appliance.admin.keys.show(minted.id)).credit == 0

    asyncio.run(scenario())


def test_the_same_race_over_http_against_a_real_server(make_server):
    server = make_server().start("--fake")
    path, body = CALLS["embeddings"]
    with server.client() as client:
        cost = client.post(path, json=body, headers={"x-dry-run": "true"}).text
    price = picocredits(str(Decimal(cost.partition('"cost":')[2].partition(",")[0])))
    rounds = (1, 23, CLIENTS - 1)

    content = json.dumps(body)

    def call(key, together):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.connect()
        together.wait(60)
        connection.request("POST", path, content, {"authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    for affordable in rounds:
        minted = server.mint(credit=credits_text(affordable * price))
        together = threading.Barrier(CLIENTS)
        with ThreadPoolExecutor(CLIENTS) as pool:
            ends = list(pool.map(call, [minted["key"]] * CLIENTS, [together] * CLIENTS))
        assert (ends.count(200), ends.count(402)) == (affordable, CLIENTS - affordable)
        with server.admin() as admin:
            assert admin.get(f"/keys/{minted['id']}").json()["credit"] == 0
    assert server.held() == 0
    assert server.stop() == 0
    books = Books(server.data_dir)
    assert books.problems == []
    assert len(books.charges) == sum(rounds)
