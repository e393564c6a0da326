"""`/admin/v1/events` and `/admin/v1/log`: what happens, told as it comes, and an end on drain."""

import asyncio
import json
import time

import httpx2
import pytest

from appliance.api import events as module
from appliance.api.events import Events
from appliance.core.clock import iso
from appliance.core.errors import QueueFull
from tests.appliance import bench
from tests.server import EMBED, Server


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "data").start("--fake")
    yield server
    server.close()


def parsed(lines):
    """Yield (event, id, data) of an event stream's lines."""
    event = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            event[name] = event.get(name, "") + value
        elif event:
            yield event.get("event"), event.get("id"), event["data"]
            event = {}


def test_a_listener_hears_calls_and_the_log_and_the_end(server):
    began = time.monotonic()
    with server.client() as client, server.admin() as admin:
        with admin.stream("GET", "/events?every=0.25") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            told = parsed(answer.iter_lines())
            kinds, calls = set(), 0
            while calls == 0 or "log" not in kinds:
                kind, _, data = next(told)
                kinds.add(kind)
                if kind == "stats":
                    if "asked" not in kinds:
                        body = {"model": EMBED, "input": "a secret text"}
                        assert client.post("/v1/embeddings", json=body).status_code == 200
                        kinds.add("asked")
                    calls = len(json.loads(data)["recent"])
                assert "secret" not in data
            server.process.terminate()
            rest = list(told)
            assert rest[-1][0] == "end"
        assert server.process.wait(30) == 0
    # A listener is no call: the drain does not wait for it, nor cut it.
    assert time.monotonic() - began < 20
    assert "never finish" not in server.log.read_text()


def test_who_comes_back_misses_no_line_and_hears_none_twice(server):
    def first(headers):
        with admin.stream("GET", "/events?every=0.25", headers=headers) as answer:
            found = []
            for kind, number, data in parsed(answer.iter_lines()):
                if kind == "stats":
                    return found, number
                found.append(json.loads(data)["number"])
        raise AssertionError(found)

    with server.admin() as admin:
        numbers, last = first({})
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers
        assert first({"last-event-id": last})[0] == []
        assert first({"last-event-id": "of-another-run"})[0] == numbers
        log = admin.get("/log").json()
        assert [line["number"] for line in log["data"]] == numbers
        assert log["cursor"] == last
        assert any("listening on" in line["message"] for line in log["data"])
        assert admin.get("/log", params={"after": last}).json()["data"] == []
        assert admin.get("/log", params={"after": "x" * 5000}).json()["data"] == log["data"]
        assert admin.get("/events?every=3").json()["error"]["param"] == "every"
        assert admin.get("/events?span=3").json()["error"]["param"] == "span"


def test_a_listener_that_hangs_up_leaves_its_place(server):
    clients, listening = [], []
    with server.admin() as admin:
        for _ in range(module.LISTENERS_MAX):
            client = httpx2.Client(base_url=admin.base_url, headers=admin.headers, timeout=30)
            answer = client.send(client.build_request("GET", "/events?every=0.25"), stream=True)
            clients.append(client)
            assert answer.status_code == 200
            # A listener has its place from its first event on.
            parts = answer.iter_raw()
            assert next(parts)
            listening.append(parts)  # it closes its answer when nobody refers to it
        refused = admin.get("/events")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert refused.headers["retry-after"] == str(module.RETRY_S)
        for client in clients:
            client.close()
        deadline = time.monotonic() + 60
        while True:
            with admin.stream("GET", "/events") as answer:
                if answer.status_code == 200:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_ticks_end_soon_after_the_end_and_count_their_listener():
    async def story():
        events, ended, seen = Events(), asyncio.Event(), 0
        async for _ in events.ticks(60, ended.is_set):
            assert events.listeners == 1
            seen += 1
            asyncio.get_running_loop().call_later(0.05, ended.set)
        assert (seen, events.listeners) == (1, 0)
        events.listeners = module.LISTENERS_MAX
        with pytest.raises(QueueFull):
            events.require_room()
        assert [None async for _ in events.ticks(60, lambda: False)] == []
        assert events.listeners == module.LISTENERS_MAX

    began = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - began < 5


def test_what_was_charged_today_outlives_a_restart_and_ends_at_midnight(tmp_path):
    async def story():
        async with bench(tmp_path / "data") as on:
            headers = await on.key(credit="1")
            body = {"model": EMBED, "input": "one text"}
            answer = await on.client.post("/v1/embeddings", json=body, headers=headers)
            cost = answer.headers["x-cost"]
            await on.mint(name="idle")
            keys = (await on.appliance.admin.keys.all()).data
            now = iso(on.clock.wall_us())
            assert {key.name: key.last_used for key in keys} == {"test": now, "idle": None}
            assert (await stats(on))["spent_today"] == cost
        async with bench(tmp_path / "data") as on:
            found = await stats(on)
            assert (found["spent_today"], found["charged"]) == (cost, "0")
            refused = await on.client.post("/v1/embeddings", json={"model": EMBED})
            assert refused.status_code == 401
            assert (await stats(on))["refusals"] == {"401 missing_api_key": 1}
            on.clock.advance(86_400)
            found = await stats(on)
            assert (found["spent_today"], found["refusals"]) == ("0", {})
            assert found["devices"][0]["memory"] > 0

    async def stats(on):
        token = {"authorization": f"Bearer {on.directory.admin_token()}"}
        return (await on.client.get("/admin/v1/stats", headers=token)).json()

    asyncio.run(story())
