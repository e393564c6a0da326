"""The process of an isolated model dies under load: the server and other models go on, books agree.

Each signal in turn. `CHILD_DEATHS` says how often (8 unless the environment says otherwise).
"""

import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from appliance.core.units import picocredits
from tests.models import write_tiny_gguf
from tests.money.audit import Books
from tests.processes import children
from tests.server import EMBED, Server

DEATHS = int(os.environ.get("CHILD_DEATHS", "8"))
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
CLIENTS = 4
"""Of each model."""
BACK_S = 30.0
TEXTS = [f"the cat sat on mat {number}" for number in range(4)]

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="threads are counted in /proc")


@dataclass
class Calls:
    """Clients of one model, at work until they are told to stop."""

    server: Server
    model: str
    key: str
    stop: threading.Event = field(default_factory=threading.Event)
    codes: Counter[str] = field(default_factory=Counter)
    costs: dict[str, int] = field(default_factory=dict)
    """What each answered call cost, by its id."""
    unpromised: list[str] = field(default_factory=list)
    """Answers that a caller was not told of how to go on from."""
    threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> "Calls":
        self.threads = [threading.Thread(target=self._call) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()
        return self

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def _call(self) -> None:
        with self.server.client(self.key) as client:
            while not self.stop.is_set():
                answer = client.post("/v1/embeddings", json={"model": self.model, "input": TEXTS})
                if answer.status_code == 200:
                    self.codes["200"] += 1
                    cost = picocredits(answer.headers["x-cost"])
                    self.costs[answer.headers["x-request-id"]] = cost
                    continue
                code = answer.json()["error"]["code"]
                self.codes[code] += 1
                if answer.status_code != 503 or "retry-after" not in answer.headers:
                    self.unpromised.append(f"{answer.status_code} {answer.text}")
                self.stop.wait(0.05)


def load(server: Server, model: str) -> None:
    with server.admin() as admin:
        answer = admin.post("/engines/load", json={"id": model})
        assert answer.status_code == 200, answer.text


def killed(server: Server, number: int) -> None:
    """End the one process of a model, and return once a call is answered again."""
    [child] = children(server.process.pid)
    os.kill(child, number)
    deadline = time.monotonic() + BACK_S
    while children(server.process.pid) in ([], [child]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_death_under_load_ends_neither_the_server_nor_another_model_nor_the_books(
    make_server, tmp_path
):
    server = make_server().start(env={"GIGAROUTER_ENGINE_ISOLATION": "auto"})
    added = server.cli("models", "add", str(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)))
    assert added.returncode == 0, added.stderr
    key = str(server.mint(credit="1000")["key"])
    load(server, "tiny")
    pid = server.process.pid
    mine, other = (Calls(server, model, key).begin() for model in ("tiny", EMBED))
    for death in range(DEATHS):
        before = mine.codes["200"]
        killed(server, SIGNALS[death % len(SIGNALS)])
        load(server, "tiny")  # an operator's order: it counts no deaths before
        deadline = time.monotonic() + BACK_S
        while mine.codes["200"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    mine.end()
    other.end()
    assert server.process.poll() is None
    assert server.process.pid == pid
    assert set(other.codes) == {"200"}
    assert mine.unpromised == []
    assert set(mine.codes) <= {"200", "engine_restarting", "model_warming"}
    assert mine.codes["engine_restarting"] > 0
    assert server.held() == 0
    server.stop()
    books = Books(server.data_dir)
    assert books.problems == []
    assert books.charged == mine.costs | other.costs
    assert books.refunded == {}
    log = server.log.read_text()
    assert "Traceback" not in log
    assert len(re.findall(r"engine of tiny died: its process was ended by SIG", log)) == DEATHS
    print(f"\n{DEATHS} deaths: {dict(mine.codes)}; the other model: {dict(other.codes)}")  # noqa: T201 - for whoever runs a hundred


def test_two_deaths_within_ten_minutes_set_the_model_aside_until_it_is_loaded_by_order(
    make_server, tmp_path
):
    server = make_server().start()
    added = server.cli("models", "add", str(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)))
    assert added.returncode == 0, added.stderr
    load(server, "tiny")
    killed(server, signal.SIGSEGV)
    load_again = {"model": "tiny", "input": "a"}
    with server.client() as client:
        headers = {"prefer": "wait=30"}
        assert client.post("/v1/embeddings", json=load_again, headers=headers).status_code == 200
        [child] = children(server.process.pid)
        os.kill(child, signal.SIGSEGV)
        deadline = time.monotonic() + BACK_S
        while True:
            answer: httpx2.Response = client.post("/v1/embeddings", json=load_again)
            if answer.status_code == 404:
                break
            assert answer.status_code in (200, 503)
            assert time.monotonic() < deadline
        why = "set aside, because its engine died 2 times within 10 minutes"
        assert why in answer.json()["error"]["message"]
        assert "SIGSEGV" in answer.json()["error"]["message"]
        doctor = " ".join(server.cli("doctor").stdout.split())
        assert why in doctor
        assert client.post("/v1/embeddings", json={"model": EMBED, "input": "a"}).status_code == 200
        assert server.cli("models", "load", "tiny").returncode == 0
        assert client.post("/v1/embeddings", json=load_again).status_code == 200
    assert server.stop() == 0
