"""How fast who has no key is answered: as fast as anybody needs, and not faster."""

import asyncio
import socket
import time

import pytest

from appliance.accounts.failed_auth import network_of
from appliance.api.pace import BURST_NS, WAIT_MAX_NS, Pace
from tests.appliance import HandClock, bench
from tests.server import EMBED

PER_SECOND = 100
BODY = {"model": EMBED, "input": "A man is eating food."}


@pytest.fixture
def slept(monkeypatch):
    """Return the waits that were asked for; nobody waits."""
    waits = []
    sleep = asyncio.sleep

    async def noted(seconds):
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("appliance.api.pace.asyncio.sleep", noted)
    return waits


def pace_of(clock, addresses_max=10):
    return Pace(clock, per_second=PER_SECOND, addresses_max=addresses_max)


def test_a_hundred_a_second_never_wait(slept):
    clock = HandClock()
    pace = pace_of(clock)
    for _ in range(1000):
        asyncio.run(pace.wait("10.0.0.1"))
        clock.advance(1 / PER_SECOND)
    assert slept == []


def test_a_burst_is_answered_at_once_and_what_follows_waits_longer_and_longer(slept):
    pace = pace_of(HandClock())
    for _ in range(PER_SECOND):
        asyncio.run(pace.wait("10.0.0.1"))
    assert slept == []
    for _ in range(3 * PER_SECOND):
        asyncio.run(pace.wait("10.0.0.1"))
    assert slept == sorted(slept)
    assert slept[0] == pytest.approx(0.01)
    assert slept[-1] == WAIT_MAX_NS / 1e9, "no longer than this"


def test_it_is_forgiven_after_a_while(slept):
    clock = HandClock()
    pace = pace_of(clock)
    for _ in range(10_000):
        asyncio.run(pace.wait("10.0.0.1"))
    slept.clear()
    clock.advance((BURST_NS + WAIT_MAX_NS) / 1e9)
    asyncio.run(pace.wait("10.0.0.1"))
    assert slept == []


def test_each_address_has_its_own_pace_and_a_network_of_ipv6_one(slept):
    pace = pace_of(HandClock())
    for number in range(PER_SECOND + 1):
        asyncio.run(pace.wait(f"fd00::{number:x}"))
    assert len(slept) == 1
    asyncio.run(pace.wait("10.0.0.2"))
    asyncio.run(pace.wait("fd00:0:0:1::1"))
    assert len(slept) == 1


def test_the_addresses_that_are_remembered_are_bounded():
    pace = pace_of(HandClock(), addresses_max=10)
    for number in range(1000):
        asyncio.run(pace.wait(f"10.1.{number // 250}.{number % 250}"))
    assert "[10 addresses]" in repr(pace)
    assert network_of.cache_info().maxsize is not None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/v1/models"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/nowhere"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/rerank"),
        ("GET", "/v1/key"),
        ("GET", "/account"),
        ("GET", "/admin/v1/keys"),
        ("POST", "/admin/v1/keys"),
    ],
)
def test_whoever_has_no_good_key_is_slowed_down(tmp_path, monkeypatch, method, path):
    async def story():
        async with bench(tmp_path / "data") as on:
            slowed = []

            async def wait(address):
                slowed.append(address)

            monkeypatch.setattr(on.appliance.app.edge._pace, "wait", wait)
            bad = {"authorization": "Bearer gr-nothing"}
            for count, headers in enumerate(({}, bad, {**bad, "host": "evil.example"}), 1):
                answer = await on.client.request(method, path, headers=headers)
                assert slowed == ["127.0.0.1"] * count, (answer.status_code, headers)

    asyncio.run(story())


def test_whoever_has_a_good_key_is_not_even_for_wrong_calls(tmp_path, monkeypatch):
    async def story():
        async with bench(tmp_path / "data") as on:
            slowed = []

            async def wait(address):
                slowed.append(address)

            monkeypatch.setattr(on.appliance.app.edge._pace, "wait", wait)
            key = await on.key()
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            assert (await on.client.post("/v1/embeddings", json=BODY, headers=key)).is_success
            wrong = await on.client.post("/v1/embeddings", json={"model": 1}, headers=key)
            assert wrong.status_code == 400
            assert (await on.client.get("/v1/key", headers=key)).is_success
            refused = await on.client.get("/admin/v1/keys", headers=key)
            assert refused.status_code == 403
            assert (await on.client.get("/admin/v1/keys", headers=token)).is_success
            assert slowed == []

    asyncio.run(story())


def test_a_flood_of_health_is_answered_at_its_pace(make_server):
    """Sixty-four connections that ask again and again."""
    server = make_server().start("--fake")
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(64)]
    answered = 0
    until = time.monotonic() + 2
    try:
        for each in connections:
            each.setblocking(False)
            each.sendall(request)
        while time.monotonic() < until:
            for each in connections:
                try:
                    if each.recv(65536):
                        answered += 1
                        each.sendall(request)
                except BlockingIOError:
                    continue
            time.sleep(0.001)
    finally:
        for each in connections:
            each.close()
    assert 0 < answered <= (1 + 2 + 2) * PER_SECOND, "the burst, two seconds, and what was waiting"
