"""A loaded model's file is truncated, overwritten, deleted, replaced or locked: answers stay right.

Each is done in place, under the path that the model was loaded from, while calls run.
"""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.models import write_tiny_gguf

TEXTS = [f"the cat sat on mat {number}" for number in range(8)]
CALLS_AFTER = 20
NOTICED_S = 30.0


@pytest.fixture
def served(make_server, tmp_path):
    """A server that computes a tiny model of the user's own, the path of its file, and a client."""
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    server = make_server().start()
    added = server.cli("models", "add", str(path), "--id", "tiny")
    assert added.returncode == 0, added.stderr
    with server.client() as client:
        yield server, next((server.data_dir / "models").glob("tiny*.gguf")), client


def embed(client, texts=TEXTS):
    """Return the vectors, or None where the model is refused because its file is gone."""
    answer = client.post(
        "/v1/embeddings",
        json={"model": "tiny", "input": texts},
        headers={"prefer": "wait=30"},
    )
    if answer.status_code == 404:
        assert ".gguf is not on this machine" in answer.json()["error"]["message"]
        return None
    assert answer.status_code == 200, answer.text
    return [row["embedding"] for row in answer.json()["data"]]


def truncate(path: Path) -> None:
    os.truncate(path, 1000)


def overwrite(path: Path) -> None:
    """Write other weights of the same shape into the same file."""
    other = write_tiny_gguf(path.with_name("other.gguf"), seed=2).read_bytes()
    with path.open("r+b") as file:
        file.write(other)


def replace(path: Path) -> None:
    other = write_tiny_gguf(path.with_name("other.gguf"), seed=2)
    shutil.move(other, path)


def lock(path: Path) -> None:
    path.chmod(0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (truncate, "was changed on the disk"),
        (overwrite, "was changed on the disk"),
        (Path.unlink, "is not on the disk any more"),
        (replace, "was changed on the disk"),
        (lock, None),
    ],
    ids=["truncated", "overwritten", "deleted", "replaced", "locked"],
)
def test_a_file_that_changes_under_a_loaded_model_ends_and_changes_nothing(served, change, said):
    server, path, client = served
    before = embed(client)
    assert before is not None
    wanted = [before, None] if change is Path.unlink else [before]
    changed, failures = threading.Event(), []

    def calls() -> None:
        left = CALLS_AFTER
        while left:
            left -= changed.is_set()
            if embed(client) not in wanted:
                failures.append("another vector")

    calling = threading.Thread(target=calls)
    calling.start()
    change(path)
    changed.set()
    calling.join(60)
    assert not calling.is_alive()
    assert server.process.poll() is None
    assert failures == []
    if said is not None:
        deadline = time.monotonic() + NOTICED_S
        while f"{path.name} {said}" not in server.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        doctor = server.cli("doctor")
        assert f"{path.name} {said}" in " ".join(doctor.stdout.split())
