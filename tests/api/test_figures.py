"""One meaning for each figure: the console's panels, the report of usage and the series agree."""

import asyncio
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.appliance import bench
from tests.server import EMBED, RERANK
from tests.unit.batches.test_batch_run import Desk

EMBEDDING = {"model": EMBED, "input": "some words"}
RANKING = {"model": RERANK, "query": "q", "documents": ["a b c", "d"]}


def token_of(on):
    return {"authorization": f"Bearer {on.directory.admin_token()}"}


async def send(on, path, body, headers, status):
    answer = await on.client.post(path, json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def stats(on, span=60):
    answer = await on.client.get(f"/admin/v1/stats?span={span}", headers=token_of(on))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def series(on):
    """Every counter of calls, as (name, model) and its sum over tiers and codes."""
    answer = await on.client.get("/metrics")
    found = Counter()
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            name = sample.name.removeprefix("gigarouter_").removesuffix("_total")
            name = "tokens" if name == "call_tokens_sum" else name
            if name in ("calls", "tokens", "documents", "refusals", "free_answers"):
                found[name, sample.labels["model"]] += sample.value
    return found


def play(tmp_path, story, **settings):
    async def run():
        async with asyncio.timeout(60), bench(tmp_path / "data", **settings) as on:
            await story(on)

    asyncio.run(run())


def test_panels_usage_and_metrics_say_the_same_of_each_model(tmp_path):
    async def story(on):
        rich, poor = await on.key(name="rich"), await on.key(name="poor", credit="0")
        said = Counter()
        for _ in range(3):
            answer = await send(on, "/v1/embeddings", EMBEDDING, rich, 200)
            said[EMBED] += answer["usage"]["total_tokens"]
        for _ in range(2):
            answer = await send(on, "/v1/rerank", RANKING, rich, 200)
            said[RERANK] += answer["usage"]["total_tokens"]
        again = {**rich, "idempotency-key": "once"}
        answer = await send(on, "/v1/embeddings", EMBEDDING, again, 200)
        said[EMBED] += answer["usage"]["total_tokens"]
        await send(on, "/v1/embeddings", EMBEDDING, again, 200)
        await send(on, "/v1/embeddings", EMBEDDING, {**rich, "x-dry-run": "true"}, 200)
        await send(on, "/v1/tokenize", {"model": EMBED, "input": "words"}, rich, 200)
        for body, path in ((EMBEDDING, "/v1/embeddings"), (RANKING, "/v1/rerank")):
            await send(on, path, body, poor, 402)
        await send(on, "/v1/embeddings", {**EMBEDDING, "model": "nobody's"}, rich, 404)
        await send(on, "/v1/embeddings", EMBEDDING, {}, 401)
        on.clock.advance(1)

        calls, documents = {EMBED: 4, RERANK: 2}, {EMBED: 0, RERANK: 4}
        wanted = [(name, calls[name], said[name], documents[name]) for name in (EMBED, RERANK)]
        answer = await on.client.get("/admin/v1/usage?by=model", headers=token_of(on))
        sold = answer.json()["data"]
        columns = ("calls", "tokens", "documents")
        assert sorted((r["group"], *(r[c] for c in columns)) for r in sold) == sorted(wanted)
        found = await stats(on)
        panel = [(m["name"], *(m[c] for c in columns)) for m in found["models"]]
        assert sorted(panel) == sorted(wanted)
        counted = await series(on)
        assert {key: n for key, n in counted.items() if key[0] in columns and n} == {
            (column, name): value
            for name, *values in wanted
            for column, value in zip(columns, values, strict=True)
            if value
        }
        assert {m["name"]: (m["errors"], m["free"]) for m in found["models"]} == {
            EMBED: (1, 3),
            RERANK: (1, 0),
        }
        assert {k["name"]: (k["calls"], k["errors"]) for k in found["keys"]} == {
            "rich": (6, 1),
            "poor": (0, 2),
        }
        refused = {model: n for (name, model), n in counted.items() if name == "refusals"}
        assert refused == {EMBED: 1, RERANK: 1, "": 2}
        assert counted["free_answers", EMBED] == 3
        rates = [found[f"{name}_per_s"] * 5 for name in (*columns, "errors", "free")]
        assert rates == pytest.approx([6, said[EMBED] + said[RERANK], 4, 4, 3])

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/v1/embeddings", {**EMBEDDING, "model": RERANK}, {}, 400, "wrong_task"),
        ("/v1/embeddings", {**EMBEDDING, "dimensions": 7}, {}, 400, "unsupported_dimensions"),
        ("/v1/embeddings", {**EMBEDDING, "input": [1, 2]}, {}, 400, "token_input_unsupported"),
        ("/v1/tokenize", {"model": EMBED, "input": "x"}, {}, 429, "rate_limited"),
        ("/v1/embeddings", {"input": "x"}, {}, 429, "rate_limited"),
        ("/v1/embeddings", EMBEDDING, {"x-dry-run": "true"}, 429, "rate_limited"),
    ],
    ids=["task", "dimensions", "ids", "free", "default", "dry"],
)
def test_a_refusal_carries_the_model_that_it_is_about(tmp_path, path, body, headers, status, code):
    async def story(on):
        key = await on.key(rpm=1 if status == 429 else None)
        if status == 429:
            await send(on, "/v1/embeddings", EMBEDDING, key, 200)
        await send(on, path, body, {**key, **headers}, status)
        [last, *_] = (await stats(on))["recent"]
        assert (last["code"], last["model"]) == (code, body.get("model", EMBED))

    play(tmp_path, story, token_ids="reject")


def test_of_what_failed_while_it_was_computed_the_model_is_known_too(tmp_path):
    async def story(on):
        key = await on.key()
        on.backend.refuse = True
        await send(on, "/v1/embeddings", EMBEDDING, key, 500)
        [last] = (await stats(on))["recent"]
        assert (last["status"], last["model"]) == (500, EMBED)

    play(tmp_path, story)


def test_lines_of_a_batch_are_calls_and_refusals_of_their_model(tmp_path):
    async def story(on):
        for name, credit in (("rich", "1"), ("poor", "0")):
            at = Desk(on, await on.mint(name=name, credit=credit))
            await at.ended(await at.order("a", "b"))
        on.clock.advance(1)
        found = await stats(on)
        assert [(m["name"], m["calls"], m["errors"]) for m in found["models"]] == [(EMBED, 2, 2)]
        refused = [call["model"] for call in found["recent"] if call["code"]]
        assert refused == [EMBED, EMBED]

    play(tmp_path, story)
