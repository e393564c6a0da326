"""Entries that promise more than their file can do, and entries that share one file."""

import asyncio

import pytest

from appliance.catalog.catalog import STARTER
from appliance.core.limits import Limits
from appliance.store.datadir import DataDir
from tests.appliance import bench
from tests.server import Server

ENTRY = """
[[model]]
id = "{id}"
task = "embeddings"
file = "starter.gguf"
dimensions = 384
max_input_tokens = {tokens}
pooling = "mean"
price = {{ unit = "1M tokens", realtime = 1 }}
"""
LONG = "word " * 700
STARTER_ID = "sentence-transformers/all-MiniLM-L6-v2"


def shelve(path, **models):
    directory = DataDir(path)
    directory.create()
    (directory.models / "starter.gguf").write_bytes(
        (STARTER / "all-MiniLM-L6-v2-F16.gguf").read_bytes()
    )
    entries = [ENTRY.format(id=name, tokens=tokens) for name, tokens in models.items()]
    directory.catalog.write_text("schema = 1\n" + "".join(entries))


def tokens_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]["prompt_tokens"]


def test_an_entry_that_promises_more_than_its_file_takes_is_refused_and_says_so(tmp_path):
    shelve(tmp_path / "data", far=1024)
    said = "max_input_tokens is 1024, and its file starter.gguf takes 512 tokens"

    async def story():
        async with bench(tmp_path / "data") as it:
            shown = (await it.client.get("/v1/models/far")).json()
            assert shown["available"] is False
            assert said in shown["reason"]
            headers = {**await it.key(), "prefer": "wait=30"}
            body = {"model": "far", "input": LONG}
            answer = await it.client.post("/v1/embeddings", json=body, headers=headers)
            assert answer.status_code == 404
            assert said in answer.json()["detail"]

    asyncio.run(story())


def test_the_starter_takes_what_its_publisher_gives_it_and_an_operator_may_give_it_more(tmp_path):
    async def story(tokens):
        async with bench(tmp_path / "data") as it:
            headers = await it.key()
            body = {"model": STARTER_ID, "input": LONG}
            answer = await it.client.post("/v1/embeddings", json=body, headers=headers)
            assert tokens_of(answer) == tokens
            assert answer.headers["x-truncated"] == "1"
            refused = await it.client.post(
                "/v1/embeddings", json={**body, "truncate": False}, headers=headers
            )
            assert refused.status_code == 400
            assert f"702 tokens; this model takes {tokens}" in refused.json()["detail"]
            shown = (await it.client.get(f"/v1/models/{STARTER_ID}")).json()
            assert (shown["available"], shown["max_input_tokens"]) == (True, tokens)
            return answer.headers["x-model-fingerprint"]

    published = asyncio.run(story(256))
    (tmp_path / "data/models.toml").write_text(
        f'schema = 1\n[[model]]\nid = "{STARTER_ID}"\nmax_input_tokens = 512\n'
    )
    raised = asyncio.run(story(512))
    assert raised != published  # the vectors of long texts are others


@pytest.mark.parametrize("first", ["small", "normal"])
def test_two_entries_of_one_file_keep_their_own_limits_whichever_is_loaded_first(
    make_server, first
):
    server: Server = make_server()
    shelve(server.data_dir, small=128, normal=512)
    server.start()
    with server.client() as client:
        client.headers["prefer"] = "wait=30"
        order = [first, "small", "normal", "small"]
        answers = [
            client.post("/v1/embeddings", json={"model": name, "input": LONG}) for name in order
        ]
    assert [tokens_of(answer) for answer in answers] == [
        {"small": 128, "normal": 512}[name] for name in order
    ]


def test_a_call_may_fill_every_input_to_the_models_limit():
    limits = Limits()
    assert limits.inputs_max * 512 <= limits.request_tokens_max
