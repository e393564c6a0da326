"""`/admin/v1/stats` says what happened, and nothing of what was asked."""

import asyncio

from tests.appliance import bench
from tests.server import EMBED, RERANK


def test_calls_refusals_keys_and_models_are_counted(tmp_path):
    async def story():
        async with bench(tmp_path / "data") as on:
            alice = await on.key(name="alice", credit="1")
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            for _ in range(3):
                body = {"model": EMBED, "input": "a secret text"}
                assert (
                    await on.client.post("/v1/embeddings", json=body, headers=alice)
                ).status_code == 200
            body = {"model": RERANK, "query": "q", "documents": ["a", "b"]}
            await on.client.post("/v1/rerank", json=body, headers=alice)
            await on.client.post("/v1/embeddings", json={"model": EMBED}, headers=alice)
            await on.client.post("/v1/embeddings", json=body)
            on.clock.advance(1)
            answer = await on.client.get("/admin/v1/stats", headers=token)
            assert answer.status_code == 200
            assert "secret" not in answer.text
            found = answer.json()
            ends = [
                (c["status"], c["code"], c["key"], c["tokens"], c["documents"])
                for c in found["recent"]
            ]
            assert ends == [
                (401, "missing_api_key", "", 0, 0),
                (400, "invalid_request", "alice", 0, 0),
                (200, "", "alice", 9, 2),
                *[(200, "", "alice", 5, 0)] * 3,
            ]
            assert found["calls_per_s"] == 4 / 5
            assert found["tokens_per_s"] == (15 + 9) / 5
            assert found["documents_per_s"] == 2 / 5
            assert found["errors_per_s"] == 2 / 5
            assert {m["name"]: m["calls"] for m in found["models"]} == {EMBED: 3, RERANK: 1}
            assert [k["name"] for k in found["keys"]] == ["alice"]
            assert set(found["stages"]) == {"tokenize", "queue", "inference", "settle", "total"}
            assert (len(found["history"]), found["step_s"]) == (60, 1)
            assert found["workers"] == 1
            assert found["process_bytes"] > 10_000_000
            span = await on.client.get("/admin/v1/stats?span=900", headers=token)
            assert span.json()["step_s"] == 10
            wrong = await on.client.get("/admin/v1/stats?span=7", headers=token)
            assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "span")

    asyncio.run(story())
