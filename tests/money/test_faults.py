"""Faults around the books: read-only disks, foreign locks, a second server."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import httpx2
import pytest

from tests.money.audit import Books
from tests.money.disks import mounted
from tests.server import EMBED, ROOT, free_port

BODY = {"model": EMBED, "input": "a short text"}
BUSY_SECONDS = 5.0
"""How long the writer waits for somebody else's lock."""


def refused(end):
    """Return the one line of a command that was refused."""
    assert end.returncode == 1, end.stdout
    assert "Traceback" not in end.stderr
    *_, line = end.stderr.splitlines()  # warnings about the directory may come before
    return line


# -- a disk that cannot be written ------------------------------------------------------------


def test_a_server_on_a_read_only_disk_is_refused_in_one_line(make_server, tmp_path):
    with mounted(tmp_path / "data", megabytes=32) as disk:
        server = make_server()
        assert server.cli("keys", "mint", "alice").returncode == 0
        before = (disk.path / "gigarouter.db").read_bytes()
        disk.remount("ro")
        for command in (("serve", "--fake"), ("keys", "list"), ("keys", "mint", "bob")):
            line = refused(server.cli(*command))
            assert str(disk.path) in line
            assert "Read-only file system" in line
        disk.remount("rw")
        assert (disk.path / "gigarouter.db").read_bytes() == before
        assert server.cli("keys", "list").returncode == 0


@contextmanager
def read_only(path):
    """Make one file read-only even for root."""
    if os.getuid() != 0:
        pytest.skip("only root mounts")
    for options in (("--bind", str(path), str(path)), ("-o", "remount,bind,ro", str(path))):
        if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
            pytest.skip("no file can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_read_only_database_is_refused_in_one_line_and_stays_as_it_is(make_server):
    server = make_server()
    assert server.cli("keys", "mint", "alice").returncode == 0
    database = server.data_dir / "gigarouter.db"
    before = database.read_bytes()
    with read_only(database):
        for command in (("serve", "--fake"), ("keys", "list")):
            line = refused(server.cli(*command))
            assert f"{database} cannot be written: Read-only file system" in line
    assert database.read_bytes() == before
    assert server.cli("keys", "list").returncode == 0


# -- somebody else's lock ---------------------------------------------------------------------


@contextmanager
def locked(database):
    """Hold the lock of a program that writes, as the sqlite3 shell does between BEGIN and COMMIT."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_while_a_shell_holds_the_lock_calls_get_503_and_nothing_is_written(make_server):
    server = make_server().start("--fake")
    key = server.mint(credit="1")["key"]
    answers = []

    def call():
        with server.client(key) as client:
            answers.append(client.post("/v1/embeddings", json=BODY))

    call()
    [served] = answers
    assert served.status_code == 200
    with locked(server.data_dir / "gigarouter.db"):
        calls = [threading.Thread(target=call) for _ in range(8)]
        began = time.monotonic()
        for thread in calls:
            thread.start()
        for thread in calls:
            thread.join(60)
        assert time.monotonic() - began > 0.9 * BUSY_SECONDS
        refusals = answers[1:]
        assert len(refusals) == 8
        for answer in refusals:
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (503, "ledger_unavailable")
            assert "database is locked" in error["message"]
            assert str(server.data_dir) not in answer.text
            assert answer.headers["retry-after"] == str(error["retry_after_s"])
            assert answer.headers["x-should-retry"] == "true"
        with httpx2.Client(base_url=server.url) as client:
            assert client.get("/health").status_code == 200
    call()
    assert answers[-1].status_code == 200
    assert server.held() == 0
    assert server.stop() == 0
    books = Books(server.data_dir)
    assert books.problems == []
    promised = {a.headers["x-request-id"] for a in answers if a.status_code == 200}
    assert promised == set(books.charges)
    assert "Traceback" not in server.log.read_text()


def test_a_lock_that_is_held_when_the_server_starts_is_a_refusal_too(make_server):
    server = make_server()
    assert server.cli("keys", "mint", "alice").returncode == 0
    with locked(server.data_dir / "gigarouter.db"):
        assert "database is locked" in refused(server.cli("keys", "mint", "bob"))
    assert server.cli("keys", "list").returncode == 0


# -- a second server --------------------------------------------------------------------------


def test_of_servers_that_start_together_on_one_directory_one_serves(make_server, tmp_path):
    data = make_server().data_dir
    ports = [free_port() for _ in range(4)]
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "appliance",
                "serve",
                "--fake",
                "--data-dir",
                str(data),
                "--port",
                str(port),
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for port in ports
    ]
    try:
        deadline = time.monotonic() + 60
        while sum(each.poll() is None for each in started) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        [running] = [each for each in started if each.poll() is None]
        for each in started:
            if each is not running:
                assert each.returncode == 1
                [line] = each.communicate(timeout=30)[1].splitlines()
                assert f"{data} is in use by another gigarouter" in line
                assert f"(process {running.pid})" in line
        url = f"http://127.0.0.1:{ports[started.index(running)]}"
        while time.monotonic() < deadline:
            try:
                assert httpx2.get(f"{url}/health").status_code == 200
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
        assert running.returncode == 0
    finally:
        for each in started:
            if each.poll() is None:
                each.kill()
                each.communicate()
