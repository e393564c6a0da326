"""Who may be the operator, by address and by token."""

import asyncio

import httpx2
import pytest

from tests.appliance import bench

TOKENLESS = "missing_api_key"


async def ask(it, client_host, token=None):
    transport = httpx2.ASGITransport(app=it.appliance.app, client=(client_host, 50_000))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(transport=transport, base_url="http://it") as client:
        answer = await client.get("/admin/v1/keys", headers=headers)
    return answer.status_code, answer.json().get("error", {}).get("code")


@pytest.mark.parametrize(
    ("bound", "client", "remote", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", False, 200),
        ("127.0.0.1", "127.8.9.1", False, 200),
        ("::1", "::1", False, 200),
        ("0.0.0.0", "::ffff:127.0.0.1", False, 200),
        ("192.0.2.2", "192.0.2.2", False, 200),
        ("192.0.2.2", "192.0.2.3", False, 404),
        ("0.0.0.0", "192.0.2.3", False, 404),
        ("0.0.0.0", "0.0.0.1", False, 404),
        ("0.0.0.0", "192.0.2.3", True, 200),
        ("127.0.0.1", "127.0.0.1.example.org", False, 404),
    ],
)
def test_the_operator_is_on_this_machine_unless_settings_say_otherwise(
    tmp_path, bound, client, remote, expected
):
    async def story():
        settings = {"host": bound, "admin": {"allow_remote": remote}}
        async with bench(tmp_path / "data", preload=False, **settings) as it:
            token = it.directory.admin_token()
            assert (await ask(it, client, token))[0] == expected
            if expected == 200:
                assert await ask(it, client) == (401, TOKENLESS)
                assert await ask(it, client, token[:-1]) == (401, "invalid_api_key")
                key = (await it.mint()).key
                assert await ask(it, client, key) == (403, "insufficient_scope")

    asyncio.run(story())


def test_the_counters_are_for_this_machine_and_for_the_operator(tmp_path):
    async def scrape(it, host, token=None):
        transport = httpx2.ASGITransport(app=it.appliance.app, client=(host, 50_000))
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx2.AsyncClient(transport=transport, base_url="http://it") as client:
            return await client.get("/metrics", headers=headers)

    async def story():
        settings = {"host": "0.0.0.0", "admin": {"allow_remote": True}}
        async with bench(tmp_path / "data", **settings) as it:
            token = it.directory.admin_token()
            assert (await scrape(it, "192.0.2.3")).status_code == 401
            assert (await scrape(it, "192.0.2.3", token)).status_code == 200
            body = {"model": "all-minilm-l6-v2", "input": ["one", "two", "one"]}
            headers = await it.key()
            assert (await it.client.post("/v1/embeddings", json=body, headers=headers)).is_success
            found = await scrape(it, "127.0.0.1")
            assert found.headers["content-type"].startswith("text/plain")
            model = '{model="sentence-transformers/all-MiniLM-L6-v2"}'
            lines = found.text.splitlines()
            assert f"gigarouter_engine_sequences_total{model} 2" in lines
            assert f"gigarouter_engine_shared_total{model} 1" in lines
            assert f"gigarouter_engine_tokens_total{model} 6" in lines
            assert f"gigarouter_engine_waiting_tokens{model} 0" in lines
            assert "gigarouter_calls_in_flight 0" in lines
            assert "gigarouter_backup_failures_total 0" in lines

    asyncio.run(story())


def test_the_counters_are_hidden_from_other_machines_unless_settings_say_otherwise(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False, host="0.0.0.0") as it:
            transport = httpx2.ASGITransport(app=it.appliance.app, client=("192.0.2.3", 1))
            async with httpx2.AsyncClient(transport=transport, base_url="http://it") as client:
                assert (await client.get("/metrics")).status_code == 404

    asyncio.run(story())
