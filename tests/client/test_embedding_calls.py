"""Calls for vectors: what is tried again is said, and is known again by the server."""

import asyncio
import base64
import json

import httpx2
import pytest

from appliance.client import embedding_calls
from appliance.client.embedding_calls import TRIES_MAX, EmbeddingCalls
from appliance.client.errors import ServerLost

VECTOR = base64.b64encode(b"\0" * 8).decode()
BODY = {"model": "m", "input": ["a"]}


def ask(server, *, key="gr-key", tier="realtime", place=1, body=BODY, said=lambda _: None):
    async def go():
        calls = EmbeddingCalls("http://there", key, is_local=False, retried=said)
        await calls.close()
        calls._http = httpx2.AsyncClient(
            base_url="http://there", transport=httpx2.MockTransport(server)
        )
        try:
            return await calls.embed(body, tier=tier, place=place)
        finally:
            await calls.close()

    return asyncio.run(go())


def answered(_request):
    return httpx2.Response(
        200, json={"data": [{"embedding": VECTOR}], "usage": {"total_tokens": 1}}
    )


def key_of(**asked):
    seen = []

    def server(request):
        seen.append(request.headers["idempotency-key"])
        return answered(request)

    ask(server, **asked)
    return seen[0]


def test_the_same_call_has_the_same_idempotency_key_in_every_run():
    others = [
        key_of(key="gr-other"),
        key_of(tier="batch"),
        key_of(place=2),
        key_of(body={**BODY, "input": ["b"]}),
        key_of(body={**BODY, "dimensions": 2}),
        key_of(body={**BODY, "model": "n"}),
    ]
    assert key_of() == key_of()
    assert len({key_of(), *others}) == 1 + len(others)


def test_a_call_that_was_repeated_often_enough_is_paid_for_again():
    seen = []

    def server(request):
        seen.append(request.headers["idempotency-key"])
        if len(seen) < 3:
            error = {"code": "idempotency_key_spent", "message": "often enough"}
            return httpx2.Response(409, headers={"x-should-retry": "false"}, json={"error": error})
        return answered(request)

    assert ask(server).rows == [b"\0" * 8]
    assert len(set(seen)) == 3
    assert seen[0] == key_of()


def test_what_is_tried_again_is_said(monkeypatch):
    monkeypatch.setattr(embedding_calls, "FIRST_S", 0.0)
    said, bodies = [], []

    def server(request):
        bodies.append(json.loads(request.content))
        raise httpx2.ConnectError("no way")

    with pytest.raises(ServerLost, match="no way"):
        ask(server, said=said.append)
    assert len(bodies) == TRIES_MAX
    assert len(said) == TRIES_MAX - 1
    assert all("no way. Check --url" in line and "; tried again in" in line for line in said)


def test_an_address_without_a_scheme_is_not_tried_again():
    async def go():
        calls = EmbeddingCalls("localhost:8642", "k", is_local=False)
        try:
            async with asyncio.timeout(5):
                await calls.embed(BODY, tier="realtime", place=1)
        finally:
            await calls.close()

    with pytest.raises(ServerLost):
        asyncio.run(go())
