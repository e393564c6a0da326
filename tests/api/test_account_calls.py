"""What a key's holder sees of its use, and how it gets a new credential."""

import asyncio
import csv
import io
import json
from decimal import Decimal

import pytest

from tests.appliance import bench
from tests.server import EMBED, RERANK


async def use(on, header, count=3):
    """Make calls of two models and two tiers; return what each cost."""
    costs = []
    for number in range(count):
        tier = {"x-tier": "batch"} if number % 2 else {}
        body = {"model": EMBED, "input": "word " * (number + 1)}
        answer = await on.client.post("/v1/embeddings", json=body, headers=header | tier)
        assert answer.status_code == 200
        costs.append(Decimal(answer.headers["x-cost"]))
    ranking = {"model": RERANK, "query": "q", "documents": ["a", "b"]}
    answer = await on.client.post("/v1/rerank", json=ranking, headers=header)
    return [*costs, Decimal(answer.headers["x-cost"])]


def told(tmp_path, story):
    async def run():
        async with bench(tmp_path / "data") as on:
            mine, others = await on.key(name="mine"), await on.key(name="others")
            costs = await use(on, mine)
            await use(on, others, 7)

            async def get(path, header=mine):
                return await on.client.get(path, headers=header)

            return await story(on, mine, get, costs)

    return asyncio.run(run())


def exact(answer):
    return json.loads(answer.text, parse_float=Decimal)


def test_use_is_summed_for_the_key_that_asks_and_for_no_other(tmp_path):
    async def story(on, mine, get, costs):
        for by, groups in (("day", 1), ("model", 2), ("tier", 2)):
            answer = await get(f"/account/usage?by={by}&since=30d")
            assert answer.headers["cache-control"] == "no-store"
            report = exact(answer)
            assert len(report["data"]) == groups
            assert report["total"]["calls"] == 4
            assert report["total"]["credits"] == sum(costs)
        by_tier = {row["group"]: row["calls"] for row in report["data"]}
        assert by_tier == {"realtime": 3, "batch": 1}
        table = await get("/account/usage?by=model&format=csv")
        assert table.headers["content-type"].startswith("text/csv")
        assert {row["model"] for row in csv.DictReader(io.StringIO(table.text))} == {EMBED, RERANK}
        refused = await get("/account/usage?format=xml")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "format")
        others = (await on.mint(name="empty")).key
        none = await get("/account/usage", {"authorization": f"Bearer {others}"})
        assert none.json()["data"] == []
        # Whose it is, is the key's own: a parameter changes nothing.
        assert exact(await get("/account/usage?key=all&by=tier"))["total"]["calls"] == 4

    told(tmp_path, story)


def test_calls_are_listed_the_newest_first_and_page_by_page(tmp_path):
    async def story(on, mine, get, costs):
        whole = exact(await get("/account/calls"))
        assert [row["cost"] for row in whole["data"]] == costs[::-1]
        assert [row["unit"] for row in whole["data"]] == ["documents"] + ["tokens"] * 3
        assert whole["data"][0]["units"] == 2
        assert whole["next"] is None
        pages, before = [], ""
        while True:
            page = exact(await get(f"/account/calls?limit=3{before}"))
            pages += page["data"]
            if page["next"] is None:
                break
            before = f"&before={page['next']}"
        assert pages == whole["data"]

    told(tmp_path, story)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("limit=1e2", "limit"),
        ("before=-1", "before"),
        ("before=" + "9" * 40, "before"),
        ("before=٣", "before"),
    ],
)
def test_a_wrong_number_is_named(tmp_path, query, param):
    async def story(on, mine, get, costs):
        answer = await get(f"/account/calls?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param

    told(tmp_path, story)


def test_a_wrong_grouping_is_named(tmp_path):
    async def story(on, mine, get, costs):
        answer = await get("/account/usage?by=hour")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "by")

    told(tmp_path, story)


def test_a_holder_gets_a_new_credential_and_the_operator_can_see_that(tmp_path):
    async def story(on, mine, get, costs):
        answer = await on.client.post("/account/rotate", headers=mine, json={"overlap": "0"})
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        new = {"authorization": f"Bearer {answer.json()['key']}"}
        assert (await get("/account")).status_code == 401
        assert (await get("/account/calls", new)).json()["data"][0]["model"] == RERANK
        [line] = on.appliance.admin.audit_log.lines()
        assert line.who == f"holder of {answer.json()['id']}"
        assert line.outcome == "done"
        assert answer.json()["key"] not in str(line)

    told(tmp_path, story)


def test_an_old_credential_works_on_for_a_while_if_that_is_wanted(tmp_path):
    async def story(on, mine, get, costs):
        answer = await on.client.post("/account/rotate", headers=mine, json={"overlap": "1h"})
        assert answer.status_code == 201
        assert (await get("/account")).status_code == 200
        on.clock.advance(3601)
        assert (await get("/account")).status_code == 401

    told(tmp_path, story)
