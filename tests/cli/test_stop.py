"""From the signal to the end of the process: never more than the drain and a few seconds."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException

import httpx2
import pytest

from tests.money.audit import Books
from tests.server import EMBED, ROOT, Server

SCRIPT = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from appliance import serve, settings
from appliance.store.datadir import DataDir

{hook}
directory = DataDir(Path(sys.argv[1]))
flags = {{"port": int(sys.argv[2]), "fake_engine": True}}
sys.exit(serve.serve(directory, settings.load(directory.path, flags)))
"""
FOREVER = "threading.Event().wait"
ENDLESS = {
    "a thread": f"threading.Thread(target={FOREVER}, name='endless').start()",
    "an executor": f"ThreadPoolExecutor(1, thread_name_prefix='endless').submit({FOREVER})",
    "a tokenizer thread": f"""
from appliance.scheduler.threads import ThreadPool
before = ThreadPool.__init__
def init(self, **sizes):
    before(self, **sizes)
    self._executor._max_workers += 1  # beside those that the server needs
    self._executor.submit({FOREVER})
ThreadPool.__init__ = init
""",
    "a download": f"""
from appliance.hub.downloads import Downloads
before = Downloads.__init__
def init(self, clock):
    before(self, clock)
    self.start('m', lambda download: {FOREVER}())
Downloads.__init__ = init
""",
    "a model that computes": f"""
from appliance.scheduler.residency import Residency
Residency.close = lambda self: {FOREVER}()
""",
    "a model that is tried": f"""
import asyncio
before = serve._Serving._announce
async def announce(self, serving):
    await before(self, serving)
    asyncio.get_running_loop().run_in_executor(None, {FOREVER})
serve._Serving._announce = announce
""",
}
LOADING = """
from appliance.engine.fake_loader import FakeLoader
def slowly(self, *arguments, **options):
    Path(sys.argv[1], 'loading').touch()
    threading.Event().wait()
FakeLoader.open_model = slowly
"""
BOUND_S = 30 + 3 + 5 + 2


@pytest.fixture
def started(tmp_path):
    """Run a server with a hook; it is killed afterwards."""
    made = []

    def start(hook, *, until):
        server = Server(tmp_path / "data")
        with server.log.open("ab") as log:
            server.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT.format(hook=hook), server.data_dir, str(server.port)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        made.append(server)
        deadline = time.monotonic() + 60
        while not until(server):
            assert server.process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.02)
        return server

    yield start
    for each in made:
        each.close()


def listens(server):
    return (server.data_dir / "server.json").exists()


def closed_in_order(server):
    """The books were closed: nothing is left in a log, and they agree with themselves."""
    assert not (server.data_dir / "gigarouter.db-wal").exists()
    assert Books(server.data_dir).problems == []
    assert not (server.data_dir / "server.json").exists()


@pytest.mark.parametrize("name", ENDLESS)
def test_sigterm_ends_a_server_with_a_thread_that_never_ends(started, name):
    server = started(ENDLESS[name], until=listens)
    server.mint()
    began = time.monotonic()
    assert server.stop(timeout=BOUND_S) == 0
    assert time.monotonic() - began < 25  # no call was in flight: there was nothing to drain
    closed_in_order(server)
    log = server.log.read_text()
    assert re.search(r"still running: .*\(0x[0-9a-f]{16}\)", log)
    assert "most recent call first" in log
    assert "wait" in log.rpartition("still running")[2]


def test_sigterm_while_a_model_is_loading_ends_soon(started):
    server = started(LOADING, until=lambda server: (server.data_dir / "loading").exists())
    began = time.monotonic()
    assert server.stop(timeout=BOUND_S) == 0
    assert time.monotonic() - began < 25
    closed_in_order(server)


def test_a_second_sigterm_ends_at_once(started):
    server = started(ENDLESS["a thread"], until=listens)
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while "stopping:" not in server.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) in (0, 1)
    assert Books(server.data_dir).problems == []


def test_sighup_under_load_drains_like_sigterm(tmp_path):
    server = Server(tmp_path / "data").start("--fake")
    key = server.mint(credit="1000")["key"]
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    content = json.dumps({"model": EMBED, "input": ["some words to embed " * 400]})
    heard, others = [], []

    def client():
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            while True:
                connection.request("POST", "/v1/embeddings", content, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    others.append(answer.status)
                    return
                heard.append(answer.headers["x-request-id"])
        except (OSError, HTTPException):
            return
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 30
        while len(heard) < 8 and time.monotonic() < deadline:
            time.sleep(0.005)
        for _ in range(3):  # a terminal that closes may send several
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        assert server.process.wait(BOUND_S) == 0
    finally:
        server.close()
        for thread in threads:
            thread.join(60)
    assert set(others) <= {503}
    assert "Traceback" not in server.log.read_text()
    books = Books(server.data_dir)
    assert books.problems == []
    assert sorted(books.charges.elements()) == sorted(heard)


def test_a_call_on_a_connection_that_was_kept_is_answered_while_the_server_drains(tmp_path):
    server = Server(tmp_path / "data").start("--fake")
    headers = {"authorization": f"Bearer {server.mint()['key']}"}
    content = json.dumps({"model": EMBED, "input": "a"})
    kept = [HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(8)]
    try:
        for each in kept:
            each.request("POST", "/v1/embeddings", content, headers)
            answer = each.getresponse()
            assert (answer.status, answer.headers["connection"]) == (200, None)
            answer.read()
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while "stopping:" not in server.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.005)
        told = []
        for each in kept:
            each.auto_open = 0  # on this connection or not at all
            each.request("POST", "/v1/embeddings", content, headers)
            answer = each.getresponse()
            told.append((answer.status, answer.headers["connection"]))
            assert json.loads(answer.read())["error"]["code"] == "draining"
        assert told == [(503, "close")] * len(kept)
        # Nobody is connected any more: nobody is waited for.
        assert server.process.wait(BOUND_S) == 0
    finally:
        server.close()
        for each in kept:
            each.close()
    books = Books(server.data_dir)
    assert (books.problems, books.charges.total()) == ([], len(kept))


def test_a_server_under_nohup_outlives_its_terminal(tmp_path):
    server = Server(tmp_path / "data")
    command = [sys.executable, "-m", "appliance", "serve", "--fake", "--port", str(server.port)]
    with server.log.open("ab") as log:
        server.process = subprocess.Popen(
            ["nohup", *command, "--data-dir", str(server.data_dir)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while not listens(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGHUP)
        assert httpx2.get(f"{server.url}/health", timeout=10).status_code == 200
        assert server.process.poll() is None
        assert server.stop() == 0
    finally:
        server.close()


def test_a_client_that_stalls_and_a_thread_that_never_ends_together_stay_within_the_bound(started):
    server = started(ENDLESS["an executor"], until=listens)
    key = server.mint()["key"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stalled:
        stalled.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Authorization: Bearer " + str(key).encode() + b"\r\n\r\n{"
        )
        assert httpx2.get(f"{server.url}/health", timeout=10).status_code == 200
        began = time.monotonic()
        assert server.stop(timeout=BOUND_S + 5) == 0
    assert time.monotonic() - began < BOUND_S
    closed_in_order(server)
