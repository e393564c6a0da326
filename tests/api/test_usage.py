"""What was sold, by day, model and key: as JSON, as CSV, as a table."""

import asyncio
import csv
import io
import sqlite3
from contextlib import closing
from decimal import Decimal

import pytest

from appliance.ledger.audit_schedule import AuditSchedule
from tests.appliance import bench
from tests.server import EMBED, RERANK

DAY_S = 86_400


async def sold(on):
    """Two keys, two models, two days; return the keys' ids."""
    first, second = await on.mint(name="=cmd()"), await on.mint(name="second")
    for minted, days in ((first, 0), (second, 0), (first, 1)):
        on.clock.advance(days * DAY_S)
        header = {"authorization": f"Bearer {minted.key}"}
        body = {"model": EMBED, "input": "five words are quite enough"}
        assert (
            await on.client.post("/v1/embeddings", json=body, headers=header)
        ).status_code == 200
    ranking = {"model": RERANK, "query": "q", "documents": ["a", "b", "c"]}
    answer = await on.client.post("/v1/rerank", json=ranking, headers=header)
    assert answer.status_code == 200
    return first.id, second.id


def asked(tmp_path, query, *, suffix=""):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            ids = await sold(on)
            token = on.directory.admin_token()
            path = f"/admin/v1/usage?{query.format(*ids)}{suffix}"
            answer = await on.client.get(path, headers={"authorization": f"Bearer {token}"})
            return ids, answer

    return asyncio.run(scenario())


def test_by_day(tmp_path):
    _, answer = asked(tmp_path, "by=day")
    rows = answer.json()["data"]
    assert [(r["calls"], r["tokens"], r["documents"]) for r in rows] == [(2, 14, 0), (2, 19, 3)]
    assert rows[0]["group"] < rows[1]["group"]
    total = answer.json()["total"]
    assert (total["calls"], total["tokens"], total["documents"]) == (4, 33, 3)
    assert Decimal(str(total["credits"])) == Decimal("0.000000168") + Decimal("0.000024")


def test_by_model_and_of_one_key(tmp_path):
    (first, _), answer = asked(tmp_path, "by=model&key={0}")
    report = answer.json()
    assert report["key"] == first
    assert {r["group"]: r["calls"] for r in report["data"]} == {EMBED: 2, RERANK: 1}


def test_by_key_with_names_since_yesterday(tmp_path):
    (first, _), answer = asked(tmp_path, "by=key&since=1d")
    assert {r["group"]: r["name"] for r in answer.json()["data"]} == {first: "=cmd()"}
    _, answer = asked(tmp_path / "again", "by=key&since=2d")
    assert len(answer.json()["data"]) == 2


def test_as_csv_without_formulas(tmp_path):
    (first, second), answer = asked(tmp_path, "by=key", suffix="&format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(answer.text))}
    assert rows[first]["name"] == "'=cmd()"
    assert rows[second] == {
        "key": second,
        "name": "second",
        "calls": "1",
        "tokens": "7",
        "documents": "0",
        "credits": "0.000000056",
        "refunds": "0",
        "refunded": "0",
    }


@pytest.mark.parametrize(
    ("query", "param"),
    [("by=hour", "by"), ("since=soon", "since"), ("since=-1d", "since"), ("key=key_nobody", None)],
)
def test_a_wrong_question_names_its_word(tmp_path, query, param):
    _, answer = asked(tmp_path, query)
    assert answer.status_code == (404 if param is None else 400)
    assert answer.json()["error"]["param"] == param


def test_books_that_no_longer_agree_are_closed_while_the_server_runs(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            minted = await on.mint()
            watch = AuditSchedule(on.directory, on.books)
            await sold(on)
            await watch.once()
            assert not on.books.writer.broken.done()
            with closing(sqlite3.connect(on.directory.database, timeout=5)) as other:
                other.execute("UPDATE usage_days SET units = units + 1")
                other.commit()
            await watch.once()
            assert "do not agree" in on.books.writer.broken.result(0)
            answer = await on.client.post(
                "/v1/embeddings",
                json={"model": EMBED, "input": "x"},
                headers={"authorization": f"Bearer {minted.key}"},
            )
            assert answer.status_code == 503

    asyncio.run(scenario())


def test_of_one_model_by_key_and_of_one_that_nobody_called(tmp_path):
    _, answer = asked(tmp_path, f"by=key&model={RERANK}")
    report = answer.json()
    assert report["model"] == RERANK
    assert [(r["name"], r["calls"], r["documents"]) for r in report["data"]] == [("=cmd()", 1, 3)]
    _, answer = asked(tmp_path, "by=day&model=nobody", suffix="&since=7d")
    assert answer.json()["data"] == []
