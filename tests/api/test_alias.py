"""`POST /admin/v1/models/alias`: other names that a model answers to."""

import asyncio

import pytest

from tests.appliance import bench
from tests.server import EMBED, RERANK


async def called(on, headers, name):
    body = {"model": name, "input": "a text"}
    return (await on.client.post("/v1/embeddings", json=body, headers=headers)).status_code


def test_a_model_answers_to_its_new_names_at_once_and_no_longer_to_the_old_ones(tmp_path):
    async def story():
        async with bench(tmp_path / "data") as on:
            headers = await on.key()
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            assert await called(on, headers, "all-minilm-l6-v2") == 200
            order = {"id": "all-minilm-l6-v2", "aliases": ["team-embed", "text-embedding-3-small"]}
            answer = await on.client.post("/admin/v1/models/alias", json=order, headers=token)
            assert (answer.status_code, answer.json()["aliases"]) == (200, order["aliases"])
            assert await called(on, headers, "text-embedding-3-small") == 200
            assert await called(on, headers, EMBED) == 200
            assert await called(on, headers, "all-minilm-l6-v2") == 404
        async with bench(tmp_path / "data") as on:
            assert await called(on, headers, "team-embed") == 200

    asyncio.run(story())


@pytest.mark.parametrize(
    "aliases", [[RERANK], ["starter-rerank"], ["no/such/name"], ["\x1b[31m"], [""]]
)
def test_a_name_that_is_none_or_anothers_is_refused_and_changes_nothing(tmp_path, aliases):
    async def story():
        async with bench(tmp_path / "data") as on:
            headers = await on.key()
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            order = {"id": EMBED, "aliases": aliases}
            answer = await on.client.post("/admin/v1/models/alias", json=order, headers=token)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "aliases")
            assert repr(aliases[0]) in answer.json()["detail"]
            assert await called(on, headers, "all-minilm-l6-v2") == 200
            assert not on.directory.catalog.exists()

    asyncio.run(story())
