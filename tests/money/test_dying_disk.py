"""The n-th flush or write of the books fails, for every n up to 50."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from tests.money.audit import Books
from tests.server import EMBED, ROOT

FAILURES = 50
SOURCE = Path(__file__).with_name("failing_sync.c")


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory):
    """The environment of a process whose disk can be told to fail."""
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD and /proc are Linux's")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("preload") / "failing_sync.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


@pytest.fixture(scope="module")
def trials(preloaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    done = subprocess.run(
        [sys.executable, "-m", "tests.money.dying_disk", str(folder), str(FAILURES)],
        cwd=ROOT,
        env=preloaded,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_after_a_failed_flush_or_write_nothing_is_acknowledged(trials):
    assert len(trials) == 2 * FAILURES
    met = [trial for trial in trials if trial["broke"]]
    # A failure that no trial meets proves nothing.
    assert len(met) > 1.8 * FAILURES
    for trial in met:
        assert trial["after"] == [], trial
        assert trial.get("final", True), trial


def test_whatever_was_acknowledged_before_is_in_the_books(trials):
    assert sum(len(trial["before"]) for trial in trials) > FAILURES
    for trial in trials:
        assert set(trial["before"]) <= set(trial["kept"]), trial
        assert trial["whole"] == "ok", trial


def test_a_server_whose_disk_fails_refuses_and_ends_by_itself_within_a_second(
    make_server, preloaded
):
    server = make_server().start("--fake")
    key = server.mint(credit="1")["key"]
    assert server.stop() == 0
    server.start("--fake", env={**preloaded, "FAIL_SYNC_AT": "25"})
    promised, refusals, failed_at = {}, [], []
    with server.client(key) as client:
        for _ in range(100):
            try:
                answer = client.post("/v1/embeddings", json={"model": EMBED, "input": "a text"})
            except httpx2.TransportError:
                break
            if answer.status_code == 200:
                assert not refusals, "acknowledged after the failure"
                promised[answer.headers["x-request-id"]] = answer.headers["x-cost"]
            else:
                failed_at.append(time.monotonic())
                refusals.append((answer.status_code, answer.json()["error"]["code"]))
    assert server.process.wait(10) == 1
    assert time.monotonic() - failed_at[0] < 1.5  # 0.5 s by its own clock, and two busy cores
    assert set(refusals) == {(503, "ledger_unavailable")}
    log = server.log.read_text()
    assert log.count("The books are closed and the server stops") == 1
    assert "gigarouter restore FILE" in log
    assert len(promised) > 3
    server.start("--fake")
    books = Books(server.data_dir)
    assert books.problems == []
    assert set(promised) <= set(books.charges)
    assert server.stop() == 0
