"""The server as a person starts it: a supervisor, and the server that it starts again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from appliance.store.datadir import DataDir
from tests.bench import deaths
from tests.models import write_tiny_gguf
from tests.server import EMBED, ROOT, child_of, is_over

POISON = """
import os
from appliance.engine import length_watch

def compute(self, sequences, *, threads):
    os.abort()

length_watch.WatchedBackend.compute = compute
"""
"""Models that were added crash the process that computes them; the built-in ones do not."""


@pytest.fixture
def server(make_server):
    return make_server().start("--fake", supervise=True)


def test_the_supervisor_is_the_process_that_people_see_and_its_signal_drains_the_server(server):
    note = DataDir(server.data_dir).server()
    assert note is not None
    assert note.pid == server.process.pid
    child = child_of(server.process.pid)
    assert child not in (None, note.pid)
    second = server.cli("serve", "--port", str(server.port))
    assert second.returncode == 1
    assert f"process {note.pid}" in second.stderr
    assert server.cli("keys", "list").returncode == 0
    assert server.stop() == 0
    assert not Path(f"/proc/{child}").exists()
    assert "stopping: 0 calls in flight" in server.log.read_text()
    assert not (server.data_dir / "server.json").exists()


def test_the_operator_is_told_how_the_server_before_ended(server):
    with server.admin() as client:
        assert client.get("/stats").json()["ended_before"] == ""
        os.kill(child_of(server.process.pid), signal.SIGKILL)
        until = time.monotonic() + 60
        while True:
            with suppress(httpx2.TransportError):
                answer = client.get("/stats")
                if answer.status_code == 200 and answer.json()["ended_before"]:
                    break
            assert time.monotonic() < until
            time.sleep(0.1)
        assert answer.json()["ended_before"] == "was ended by SIGKILL"
    assert server.stop() == 0
    assert "the server before this one was ended by SIGKILL" in server.log.read_text()


def test_a_directory_whose_supervisor_was_killed_can_be_served_again_at_once(server):
    child = child_of(server.process.pid)
    server.kill()
    server.start("--fake", supervise=True)
    assert is_over(child)
    assert server.stop() == 0


def test_a_signal_to_all_processes_drains_once_and_does_not_cut_off(server):
    # As systemd stops a service: the supervisor and the server get the signal, and it is passed on.
    child = child_of(server.process.pid)
    os.kill(child, signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(40) == 0
    assert "without waiting" not in server.log.read_text()


def test_a_server_that_cannot_start_is_one_line_and_the_supervisors_end(make_server):
    server = make_server()
    server.data_dir.mkdir()
    (server.data_dir / "gigarouter.db").write_bytes(b"no database" * 1000)
    began = time.monotonic()
    done = server.cli("serve", "--fake", "--port", str(server.port))
    assert done.returncode == 1
    assert time.monotonic() - began < 30
    assert "started again" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "gigarouter.db" in done.stderr


def test_a_call_at_the_start_waits_for_its_model_and_the_port_is_open_before_it_is_loaded(
    make_server,
):
    server = make_server()
    server.start("--fake")
    key = str(server.mint()["key"])
    assert server.stop() == 0
    with server.log.open("ab") as log:
        server.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "appliance", "serve", "--port", str(server.port)),
                *("--data-dir", str(server.data_dir)),
            ],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    until = time.monotonic() + 60
    while True:
        try:
            with server.client(key) as client:
                answer = client.post("/v1/embeddings", json={"model": EMBED, "input": "a"})
            break
        except httpx2.TransportError:
            assert time.monotonic() < until
            time.sleep(0.02)
    assert answer.status_code == 200, answer.text
    assert server.stop() == 0


def test_a_model_that_crashes_the_server_twice_is_set_aside_and_the_others_go_on(
    make_server, tmp_path
):
    server = make_server()
    folder = tmp_path / "hook"
    folder.mkdir()
    path = write_tiny_gguf(tmp_path / "poison.gguf", seed=1)
    added = server.cli("models", "add", str(path), "--id", "x/poison", "--task", "embeddings")
    assert added.returncode == 0, added.stderr
    (folder / "sitecustomize.py").write_text(POISON)
    server.start(
        supervise=True, env={**deaths.AT_ONCE, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    )
    with server.client() as client:
        for _ in range(2):
            with pytest.raises(httpx2.TransportError):
                client.post("/v1/embeddings", json={"model": "x/poison", "input": "a text"})
        refused = client.post("/v1/embeddings", json={"model": "x/poison", "input": "a text"})
        assert refused.status_code == 404
        assert "crashed 2 times within ten minutes" in refused.text
        assert "gigarouter models try x/poison" in refused.text
        good = client.post("/v1/embeddings", json={"model": EMBED, "input": "a text"})
        assert good.status_code == 200
    assert server.stop() == 0
    crashes = json.loads((server.data_dir / "models" / "trials" / "crashes.json").read_text())
    assert [each["mark"]["model"] for each in crashes] == ["x/poison"] * 2
    assert all(each["mark"]["sequences"] == 1 for each in crashes)
    assert "a text" not in server.log.read_text()
    assert "computing 1 sequences" in server.log.read_text()
    # Tried again, by a program that is well, it is back.
    tried = server.cli("models", "try", "x/poison")
    assert tried.returncode == 0, tried.stderr
    server.start(supervise=True)
    with server.client() as client:
        answer = client.post("/v1/embeddings", json={"model": "x/poison", "input": "a text"})
        assert answer.status_code == 200, answer.text
    assert server.stop() == 0


def test_systemd_hears_that_it_is_ready_that_it_lives_and_that_it_stops(make_server, tmp_path):
    server = make_server()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        server.start("--fake", supervise=True, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        # A sign of life may come before the port is known to be served.
        assert {manager.recv(100) for _ in range(2)} == {b"READY=1", b"WATCHDOG=1"}
        assert manager.recv(100) == b"WATCHDOG=1", "again and again"
        server.stop()
        said = []
        while not said or said[-1] != b"STOPPING=1":
            said.append(manager.recv(100))
        assert set(said[:-1]) <= {b"WATCHDOG=1"}


def test_a_warning_about_the_start_is_given_once(make_server):
    server = make_server().start(
        "--fake", supervise=True, env={"GIGAROUTER_PORT_80_TCP": "tcp://10.0.0.1:80"}
    )
    assert server.stop() == 0
    assert server.log.read_text().count("GIGAROUTER_PORT_80_TCP") == 1
