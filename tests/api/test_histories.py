"""Histories of calls outlive the server that counted them."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from appliance.core.errors import StorageFull
from appliance.observe import history_keeper
from appliance.store.writer import Writer
from tests.api.test_figures import EMBEDDING, RANKING, send, stats, token_of
from tests.appliance import bench
from tests.server import EMBED, RERANK


def play(tmp_path, *stories):
    """Each story has a server of its own, over the same data."""

    async def run():
        for story in stories:
            async with asyncio.timeout(60), bench(tmp_path / "data") as on:
                await story(on)

    asyncio.run(run())


def rows(path, table):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            f"SELECT model, calls, tokens, documents, refused FROM {table} ORDER BY model"
        ).fetchall()


def test_a_day_shows_calls_of_minutes_ago_and_after_a_restart_those_of_before(tmp_path):
    tokens = []

    async def before(on):
        key = await on.key()
        for _ in range(6):
            answer = await send(on, "/v1/embeddings", EMBEDDING, key, 200)
            tokens.append(answer["usage"]["total_tokens"])
        answer = await send(on, "/v1/rerank", RANKING, key, 200)
        tokens.append(answer["usage"]["total_tokens"])
        on.clock.advance(120)
        day = await stats(on, span=86_400)
        assert day["highest"]["tokens"] == sum(tokens) / 60
        assert day["history"][-1]["calls"] > 0

    async def after(on):
        # Its clock is behind the history, whose last minute it goes on with.
        written = [("", 7, sum(tokens), 2, 0), (RERANK, 1, tokens[-1], 2, 0)]
        written.append((EMBED, 6, sum(tokens[:-1]), 0, 0))
        for table in ("history_minutes", "history_hours"):
            assert rows(on.directory.database, table) == sorted(written)
        for span in (3600, 86_400, 2_592_000):
            found = await stats(on, span=span)
            assert found["highest"]["tokens"] == sum(tokens) / 60, span
            assert found["highest"]["documents"] == 2 / 60
            assert any(point["calls"] for point in found["history"])
        assert found["recent"] == []
        assert found["has_keys"] is True
        on.clock.advance(7200)
        found = await stats(on, span=86_400)
        assert [p["calls"] * 3600 for p in found["history"] if p["calls"]] == pytest.approx([7])
        assert not any(p["calls"] for p in (await stats(on, span=3600))["history"])

    play(tmp_path, before, after)


def test_each_model_has_a_history_of_its_own_over_a_restart(tmp_path):
    async def before(on):
        key = await on.key()
        await send(on, "/v1/embeddings", EMBEDDING, key, 200)
        await send(on, "/v1/rerank", RANKING, key, 200)

    async def after(on):
        on.clock.advance(60)
        for name, documents in (("all-minilm-l6-v2", 0), (RERANK, 2)):
            path = f"/admin/v1/history?model={name}&span=3600"
            found = (await on.client.get(path, headers=token_of(on))).json()
            assert (found["span_s"], found["step_s"], len(found["data"])) == (3600, 60, 61)
            assert found["model"] == (RERANK if documents else EMBED)
            assert found["highest"]["calls"] * 60 == 1
            assert found["highest"]["documents"] * 60 == documents
            assert sum(point["calls"] for point in found["data"]) * 60 == 1
        for query, status, param in (("model=nobody", 404, "model"), ("span=60", 400, "span")):
            path = f"/admin/v1/history?{query}"
            answer = await on.client.get(path, headers=token_of(on))
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)

    play(tmp_path, before, after)


def test_events_have_the_history_too_and_spans_that_are_not_kept_are_named(tmp_path):
    async def before(on):
        await send(on, "/v1/embeddings", EMBEDDING, await on.key(), 200)

    async def after(on):
        loop, pipeline = asyncio.get_running_loop(), on.appliance.pipeline
        loop.call_later(0.5, setattr, pipeline, "draining", True)
        path = "/admin/v1/events?span=86400&every=0.25"
        async with on.client.stream("GET", path, headers=token_of(on)) as answer:
            text = (await answer.aread()).decode()
        assert '"highest"' in text
        assert '"calls":0.016666666666666666' in text.partition('"highest"')[2]
        wrong = await on.client.get("/admin/v1/stats?span=7", headers=token_of(on))
        assert "60, 900, 3600, 86400, 2592000" in wrong.json()["error"]["message"]

    play(tmp_path, before, after)


def test_a_store_that_takes_no_history_refuses_no_call(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(history_keeper, "EVERY_S", 0.01)
    run = Writer.run

    async def full(self, operation, *, durable=True, essential=True):
        if not essential:
            raise StorageFull
        return await run(self, operation, durable=durable, essential=essential)

    async def story(on):
        key = await on.key()
        monkeypatch.setattr(Writer, "run", full)
        for _ in range(3):
            await send(on, "/v1/embeddings", EMBEDDING, key, 200)
            on.clock.advance(60)
            await asyncio.sleep(0.05)
        assert (await stats(on, span=3600))["highest"]["calls"] == 1 / 60
        monkeypatch.setattr(Writer, "run", run)

    play(tmp_path, story)
    assert caplog.text.count("history of calls is not written") == 1
    assert rows(tmp_path / "data" / "gigarouter.db", "history_hours")[0][:2] == ("", 3)
