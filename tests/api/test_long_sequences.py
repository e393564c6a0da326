"""A model takes sequences as long as `GET /v1/models` says, and no longer."""

import pytest

from tests import decoders
from tests.server import Server

SHAPE = decoders.Shape(context=32_768, blocks=2, kv_heads=4, head=128)
"""Four kilobytes of keys and values for each token: 134 MB for its longest sequence."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    return decoders.write_decoder(folder / "long.gguf", decoders.weights(SHAPE, seed=1), SHAPE)


@pytest.mark.parametrize(
    ("memory_mb", "isolation", "least", "most"),
    [
        (60, "none", 3000, 8000),
        (127, "auto", 3000, 8000),  # its process takes 67 of them
        (4000, "auto", 32_768, 32_768),
    ],
)
def test_what_models_says_is_what_is_computed(tmp_path, path, memory_mb, isolation, least, most):
    server = Server(tmp_path / "data")
    try:
        server.start(
            env={
                "GIGAROUTER_ENGINE_MEMORY_MB": str(memory_mb),
                "GIGAROUTER_ENGINE_ISOLATION": isolation,
                "GIGAROUTER_DEFAULT_WAIT_S": "60",
            }
        )
        added = server.cli("models", "add", str(path), "--id", "long")
        assert added.returncode == 0, added.stderr
        with server.client() as client:
            promised = client.get("/v1/models/long").json()["max_input_tokens"]
            assert least <= promised <= most
            [listed] = [m for m in client.get("/v1/models").json()["data"] if m["id"] == "long"]
            assert listed["max_input_tokens"] == promised
            order = {"model": "long", "input": "a" * 40_000, "dry_run": True}
            dry = client.post("/v1/embeddings", json=order, headers={"X-Dry-Run": "true"})
            assert dry.json()["units"] == promised, dry.text
            refused = client.post("/v1/embeddings", json={**order, "truncate": False})
            assert refused.status_code == 400
            assert str(promised) in refused.json()["error"]["message"]
            if promised < 8000:
                answer = client.post("/v1/embeddings", json=order)
                assert answer.status_code == 200, answer.text
                assert answer.json()["usage"]["prompt_tokens"] == promised
                assert answer.headers["x-truncated"] == "1"
    finally:
        server.close()
