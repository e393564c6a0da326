"""Who may be the operator, by address and by token."""

import asyncio
import threading

import httpx2
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from appliance.observe.metrics import Metrics
from tests.appliance import bench

TOKENLESS = "missing_api_key"


async def ask(it, client_host, token=None):
    transport = httpx2.ASGITransport(app=it.appliance.app, client=(client_host, 50_000))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
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
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
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
            for _ in range(4):
                await scrape(it, "127.0.0.1")
            found = await scrape(it, "127.0.0.1")
            assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            model = {"model": "sentence-transformers/all-MiniLM-L6-v2"}
            series = {
                (sample.name, *sorted(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(found.text)
                for sample in family.samples
            }
            expected = {"sequences_total": 2, "shared_total": 1, "tokens_total": 6}
            for name, value in {**expected, "waiting_tokens": 0}.items():
                assert series[f"gigarouter_engine_{name}", *model.items()] == value, name
            assert series["gigarouter_calls_in_flight",] == 0
            assert series["gigarouter_backup_failures_total",] == 0
            labels = *model.items(), ("tier", "realtime")
            assert series["gigarouter_calls_total", *labels] == 1
            for stage in ("tokenize", "queue", "inference", "settle"):
                assert series["gigarouter_stage_duration_seconds_count", ("stage", stage)] == 1
            assert series["gigarouter_call_duration_seconds_count",] == 1

    asyncio.run(story())


def test_the_counters_are_hidden_from_other_machines_unless_settings_say_otherwise(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False, host="0.0.0.0") as it:
            transport = httpx2.ASGITransport(app=it.appliance.app, client=("192.0.2.3", 1))
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                assert (await client.get("/metrics")).status_code == 404

    asyncio.run(story())


def test_a_scrape_may_ask_for_openmetrics(tmp_path):
    async def story():
        async with bench(tmp_path / "data") as it:
            accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
            found = await it.client.get("/metrics", headers={"accept": accept})
            kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
            assert found.headers["content-type"] == kind
            names = {
                family.name for family in openmetrics.text_string_to_metric_families(found.text)
            }
            assert "gigarouter_engine_tokens" in names

    asyncio.run(story())


def test_a_model_whose_old_engine_drains_is_scraped_once(tmp_path):
    """A file that was replaced: the pool has an entry for each of both until the old one is idle."""

    async def story():
        async with bench(tmp_path / "data") as it:
            pool = it.appliance.residency.pool
            [(weights, entry)] = pool.entries.items()
            pool.entries[(*weights[:3], "0" * 64)] = entry
            found = await it.client.get("/metrics")
            del pool.entries[(*weights[:3], "0" * 64)]
            lines = [line.rpartition(" ")[0] for line in found.text.splitlines() if line[0] != "#"]
            assert any("gigarouter_engine_tokens_total{" in line for line in lines)
            assert len(lines) == len(set(lines))

    asyncio.run(story())


def test_the_loop_is_free_while_a_scrape_is_rendered(tmp_path, monkeypatch):
    threads = []

    def render(it, accept):
        threads.append(threading.current_thread())
        return real(it, accept)

    real = Metrics.render
    monkeypatch.setattr(Metrics, "render", render)

    async def story():
        async with bench(tmp_path / "data", preload=False) as it:
            assert (await it.client.get("/metrics")).status_code == 200
        assert threads
        assert threading.current_thread() not in threads

    asyncio.run(story())


def test_an_operator_behind_a_proxy_is_written_down_with_an_address_of_its_own(tmp_path):
    async def story():
        settings = {"trusted_proxies": ["127.0.0.1"], "admin": {"allow_remote": True}}
        async with bench(tmp_path / "data", preload=False, **settings) as it:
            headers = {
                "authorization": f"Bearer {it.directory.admin_token()}",
                "x-forwarded-for": "203.0.113.5, 192.0.2.9",
            }
            order = {"name": "a", "credit": "1"}
            made = await it.client.post("/admin/v1/keys", json=order, headers=headers)
            assert made.status_code == 201
            await it.client.get("/admin/v1/keys", headers={"x-forwarded-for": "192.0.2.9"})
            [line] = it.appliance.admin.audit_log.lines()
            assert (line.who, line.origin, line.what) == ("admin token", "192.0.2.9", "mint")
        [_, refused] = it.appliance.admin.audit_log.lines()
        assert (refused.who, refused.origin) == ("nobody", "192.0.2.9")

    asyncio.run(story())
