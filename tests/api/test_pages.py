"""Pages over HTTP: who gets one, what protects it, and that programs see what they always saw."""

import asyncio
import gzip
import html
import json
import re
import shlex
import subprocess
import sys

import pytest

from appliance.api.openapi import document
from appliance.pages.navigation import PAGES
from tests.api.test_authorization import PEOPLES, ask
from tests.appliance import bench
from tests.server import EMBED, RERANK

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PATHS = tuple(each.path for each in PAGES)
PROGRAMS = (None, "*/*", "application/json", "application/json, text/html")


@pytest.mark.parametrize("path", PATHS)
def test_a_browser_gets_a_page_with_its_policy(tmp_path, path):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            first, second = [await on.client.get(path, headers={"accept": BROWSER}) for _ in "ab"]
            for answer in (first, second):
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "text/html; charset=utf-8"
                assert answer.text.startswith("<!doctype html>")
                assert "accept" in answer.headers["vary"]
                assert answer.headers["cache-control"] == "no-store"
                policy = answer.headers["content-security-policy"]
                [nonce] = set(re.findall(r"'nonce-([^']+)'", policy))
                marked = re.findall(r'<(?:script|link)[^>]* nonce="([^"]*)"', answer.text)
                assert set(marked) == {nonce}
            assert (
                first.headers["content-security-policy"]
                != second.headers["content-security-policy"]
            )

    asyncio.run(story())


@pytest.mark.parametrize("accept", PROGRAMS)
def test_a_program_at_the_root_is_told_that_the_server_runs(tmp_path, accept):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            on.client.headers.pop("accept", None)
            headers = {} if accept is None else {"accept": accept}
            answer = await on.client.get("/", headers=headers)
            assert (answer.status_code, answer.text) == (200, "gigarouter is running")
            assert answer.headers["content-type"].startswith("text/plain")
            assert "accept" in answer.headers["vary"]

    asyncio.run(story())


@pytest.mark.parametrize("path", sorted(PEOPLES))
@pytest.mark.parametrize("accept", PROGRAMS)
def test_programs_are_told_what_they_always_were(tmp_path, path, accept):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            on.client.headers.pop("accept", None)
            answer = await on.client.get(path, headers={} if accept is None else {"accept": accept})
            expected = (401, "missing_api_key") if path == "/account" else (404, "unknown_path")
            assert (answer.status_code, answer.json()["error"]["code"]) == expected

    asyncio.run(story())


def test_a_browser_with_a_key_is_told_of_the_account_as_programs_are(tmp_path):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            minted = await on.mint()
            header = {"authorization": f"Bearer {minted.key}"}
            for more, query in ((header, ""), ({}, f"?key={minted.key}")):
                answer = await on.client.get("/account" + query, headers={"accept": BROWSER} | more)
                assert answer.json()["name"] == "test"
                assert answer.headers["cache-control"] == "no-store"
                assert "accept" in answer.headers["vary"]

    asyncio.run(story())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.test:8642"}, 421),
        ({"origin": "http://evil.test", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
    ],
)
def test_a_page_of_somebody_else_and_a_rebound_name_read_nothing(tmp_path, path, headers, status):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            shown = (await on.client.get(path, headers={"accept": BROWSER})).text
            file = re.search(r'href="(/static/site[^"]+)"', shown)[1]
            for each in (path, file):
                answer = await on.client.get(each, headers={"accept": BROWSER, **headers})
                assert answer.status_code == status
                assert "error" in answer.json()
                assert EMBED not in answer.text
                assert "--ground" not in answer.text
                assert "<!doctype" not in answer.text

    asyncio.run(story())


@pytest.mark.parametrize("path", PATHS)
def test_a_link_from_elsewhere_leads_here_and_no_frame_shows_it(tmp_path, path):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
            answer = await on.client.get(path, headers={"accept": BROWSER, **link})
            assert answer.status_code == 200
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-frame-options"] == "DENY"

    asyncio.run(story())


def test_files_are_kept_for_ever_and_packed_for_who_can_unpack(tmp_path):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            app = on.appliance.app
            shown = (await on.client.get("/", headers={"accept": BROWSER})).text
            files = set(re.findall(r'"(/static/[^"]+)"', shown))
            assert len(files) == 3
            for file in files:
                plain = await on.client.get(file, headers={"accept-encoding": "identity"})
                packed = await on.client.get(file, headers={"accept-encoding": "gzip"})
                assert plain.status_code == packed.status_code == 200
                assert "content-encoding" not in plain.headers
                assert packed.headers["content-encoding"] == "gzip"
                assert packed.content == plain.content
                for answer in (plain, packed):
                    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
                    assert answer.headers["x-content-type-options"] == "nosniff"
                    assert answer.headers["vary"] == "accept-encoding"
            for wrong in ("/static/site.css", "/static/nothing", "/static/..", "/static/"):
                refused = await ask(app, "GET", wrong)
                assert (refused.status, refused.code) == (404, "unknown_path")

    asyncio.run(story())


def test_a_page_is_packed_for_who_can_unpack(tmp_path):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            raw = []
            for coding in ("gzip", "identity"):
                headers = {"accept": BROWSER, "accept-encoding": coding}
                async with on.client.stream("GET", "/", headers=headers) as answer:
                    raw.append(b"".join([each async for each in answer.aiter_raw()]))
                    assert ("content-encoding" in answer.headers) == (coding == "gzip")
            assert len(raw[0]) < len(raw[1]) / 3
            assert gzip.decompress(raw[0]).startswith(b"<!doctype html>")

    asyncio.run(story())


def test_the_reference_shows_every_call_in_a_group_and_an_example_of_each_paid_one():
    shown = json.loads(document())
    groups = [each["name"] for each in shown["tags"]]
    calls = {
        (method, path): call
        for path, item in shown["paths"].items()
        for method, call in item.items()
        if method in ("get", "post", "put", "patch", "delete")
    }
    assert len(calls) > 30
    assert {
        name: call.get("tags")
        for name, call in calls.items()
        if call.get("tags", [])[:1] not in [[each] for each in groups]
    } == {}
    assert {group for call in calls.values() for group in call["tags"]} == set(groups)
    for path in ("/v1/embeddings", "/v1/rerank"):
        [*_, name] = calls["post", path]["requestBody"]["$ref"].split("/")
        body = shown["components"]["requestBodies"][name]
        assert "model" in body["content"]["application/json"]["example"]


def test_the_document_that_the_reference_shows_is_packed_for_who_can_unpack(tmp_path):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            sizes, found = [], []
            for coding in ("gzip", "identity"):
                headers = {"accept-encoding": coding}
                answer = await on.client.get("/v1/openapi.json", headers=headers)
                assert ("content-encoding" in answer.headers) == (coding == "gzip")
                assert answer.headers["vary"] == "accept-encoding"
                sizes.append(int(answer.headers["content-length"]))
                found.append(answer.json())
            assert sizes[0] < sizes[1] / 5
            assert found[0] == found[1]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("headers", "settings", "shown"),
    [
        ({}, {}, "http://127.0.0.1:8642"),
        ({"host": "localhost:9"}, {}, "http://localhost:9"),
        ({"host": "models.example"}, {"hosts": ["models.example"]}, "http://models.example"),
        ({"x-forwarded-proto": "https"}, {}, "http://127.0.0.1:8642"),
        (
            {"host": "models.example", "x-forwarded-proto": "https"},
            {"hosts": ["models.example"], "trusted_proxies": ["127.0.0.1"]},
            "https://models.example",
        ),
    ],
)
def test_examples_have_the_address_that_the_reader_came_by(tmp_path, headers, settings, shown):
    async def story():
        async with bench(tmp_path, preload=False, **settings) as on:
            page = await on.client.get("/", headers={"accept": BROWSER, **headers})
            assert f"curl {shown}/v1/embeddings" in page.text
            assert ("gigarouter tls ca" in page.text) == shown.startswith("https")

    asyncio.run(story())


def test_examples_name_the_default_models(tmp_path):
    async def story():
        async with bench(tmp_path, preload=False) as on:
            page = (await on.client.get("/", headers={"accept": BROWSER})).text
            assert f"Embedding model: {EMBED}" in page
            assert f"Reranking model: {RERANK}" in page

    asyncio.run(story())


def test_a_search_shows_what_it_asks_for(tmp_path):
    async def story():
        async with bench(tmp_path, preload=False) as on:

            async def found(query):
                page = await on.client.get(f"/?{query}", headers={"accept": BROWSER})
                assert page.status_code == 200
                return re.findall(r'<span class="id">([^<]+)<', page.text), page.text

            every, _ = await found("")
            ranks, _ = await found("task=rerank")
            assert len(every) > len(ranks) > 0
            assert (await found("here=1&task=rerank"))[0] == [RERANK]
            assert (await found("q=starter-rerank"))[0] == [RERANK]
            none, page = await found("q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
            assert none == []
            assert "<script>alert" not in page
            assert (await found("task=cook&here=x&q="))[0] == every

    asyncio.run(story())


def test_what_an_answer_depends_on_is_named_for_pages_of_other_origins_too(tmp_path):
    async def story():
        async with bench(tmp_path, preload=False, cors_origins=["https://app.example"]) as on:
            headers = {"accept": BROWSER, "origin": "https://app.example"}
            answer = await on.client.get("/", headers=headers)
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            named = {each.strip().lower() for each in answer.headers["vary"].split(",")}
            assert named == {"accept", "accept-encoding", "origin"}

    asyncio.run(story())


def words_of(page, name):
    """Return an example as a person would copy it."""
    return html.unescape(re.search(rf'<code id="code-{name}">(.*?)</code>', page, re.DOTALL)[1])


def test_the_examples_of_a_started_server_work_as_they_stand(server):
    key = str(server.mint("page")["key"])
    with server.client(key) as client:
        page = client.get("/", headers={"accept": BROWSER}).text
        words = shlex.split(words_of(page, "curl").replace("\\\n", " "))
        urls = [word for word in words if word.startswith("http")]
        bodies = [words[at + 1] for at, word in enumerate(words) if word == "-d"]
        assert [url.removeprefix(server.url) for url in urls] == ["/v1/embeddings", "/v1/rerank"]
        for url, body in zip(urls, bodies, strict=True):
            assert client.post(url, content=body).status_code == 200
            assert json.loads(body)["model"] in (EMBED, RERANK)
    for name, printed in (("python", r"\[-?0\.\d+.*total_tokens="), ("cohere", r"\[\(1, 0\.\d+")):
        code = words_of(page, name).replace("gr-…", key)
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert re.search(printed, ended.stdout), (ended.stdout, ended.stderr)
