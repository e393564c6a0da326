"""Pages of other origins: none may call unless the operator names its origin, and never the admin's API."""

import asyncio

import pytest

from tests.appliance import bench
from tests.server import EMBED

APP, OTHER = "https://app.example", "https://evil.example"
CROSS = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
BODY = {"model": EMBED, "input": "a"}


def test_a_page_that_is_named_may_call_and_read(tmp_path):
    async def story():
        async with bench(tmp_path, cors_origins=(APP,)) as it:
            asked = {
                "origin": APP,
                **CROSS,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type,x-tier",
            }
            may = await it.client.options("/v1/embeddings", headers=asked)
            assert (may.status_code, may.content) == (204, b"")
            assert may.headers["access-control-allow-origin"] == APP
            assert "POST" in may.headers["access-control-allow-methods"]
            assert "authorization" in may.headers["access-control-allow-headers"]
            page = {"origin": APP.upper().replace("HTTPS", "https"), **CROSS}
            answer = await it.client.post(
                "/v1/embeddings", json=BODY, headers={**await it.key(), **page}
            )
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == page["origin"]
            assert "authorization" not in answer.headers["access-control-allow-origin"]
            refused = await it.client.post("/v1/embeddings", json=BODY, headers=page)
            assert refused.status_code == 401, "a key is needed all the same"
            assert refused.headers["access-control-allow-origin"] == page["origin"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("origins", "origin", "path"),
    [
        ((), APP, "/v1/models"),
        ((APP,), OTHER, "/v1/models"),
        ((APP,), "https://app.example.evil.example", "/v1/models"),
        ((APP,), "http://app.example", "/v1/models"),
        ((APP,), "null", "/v1/models"),
        ((APP,), APP, "/admin/v1/keys"),
        ((APP,), APP, "/metrics"),
    ],
)
def test_no_other_page_and_no_page_of_the_operators_api(tmp_path, origins, origin, path):
    async def story():
        async with bench(tmp_path, cors_origins=origins) as it:
            headers = {"origin": origin, **CROSS}
            refused = await it.client.get(path, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "foreign_origin")
            assert "access-control-allow-origin" not in refused.headers
            asked = {**headers, "access-control-request-method": "GET"}
            preflight = await it.client.options(path, headers=asked)
            assert preflight.status_code == 403
            assert "access-control-allow-origin" not in preflight.headers

    asyncio.run(story())


@pytest.mark.parametrize(
    ("origins", "path", "varies"),
    [
        ((APP,), "/v1/models", True),
        ((APP,), "/health", True),
        ((APP,), "/metrics", False),
        ((APP,), "/admin", False),
        ((), "/v1/models", False),
    ],
)
def test_an_answer_says_that_it_depends_on_the_origin_where_it_does(
    tmp_path, origins, path, varies
):
    """Else a cache hands the answer to somebody without an origin to a page that may read it."""

    async def story():
        async with bench(tmp_path, cors_origins=origins) as it:
            headers = {"accept": "text/html,*/*;q=0.8"}
            answer = await it.client.get(path, headers=headers)
            assert answer.status_code == 200
            assert ("origin" in answer.headers.get("vary", "")) == varies
            assert "access-control-allow-origin" not in answer.headers

    asyncio.run(story())


def test_the_operators_page_is_for_no_other_page(tmp_path):
    async def story():
        async with bench(tmp_path, cors_origins=(APP,)) as it:
            headers = {"origin": APP, **CROSS, "accept": "text/html"}
            refused = await it.client.get("/admin", headers=headers)
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers

    asyncio.run(story())
