"""A server that is started with few descriptors: it says so, and waits instead of spinning."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.server import QUICK, ROOT, free_port

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@pytest.fixture
def start(tmp_path):
    started = []

    def run(limit):
        port, log = free_port(), tmp_path / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    *("bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash", sys.executable),
                    *("-m", "appliance", "serve", "--fake"),
                    *("--data-dir", str(tmp_path / "data"), "--port", str(port)),
                ],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                env={**os.environ, **QUICK},
            )
        started.append(process)
        deadline = time.monotonic() + 60
        while "listening on" not in log.read_text() and process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        return process, port, log

    yield run
    for process in started:
        process.kill()
        process.wait(30)


@pytest.mark.parametrize("limit", [64, 256])
def test_a_server_with_few_descriptors_warns_and_waits_for_room(start, limit):
    process, port, log = start(limit)
    assert f"WARNING {limit} descriptors may be open" in log.read_text()
    with ExitStack() as held:
        for _ in range(limit + 20):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        time.sleep(0.5)  # the accept loop takes what it may
        began, used = time.monotonic(), cpu_seconds(process)
        time.sleep(1.5)  # the time over which the loop is watched
        share = (cpu_seconds(process) - used) / (time.monotonic() - began)
        assert share < 0.3
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < limit, (
            "files can still be opened"
        )
    assert httpx2.get(f"http://127.0.0.1:{port}/health", timeout=20).status_code == 200
    process.terminate()
    assert process.wait(40) == 0
    assert "Too many open files" not in log.read_text()


def test_a_server_without_room_for_connections_says_which_limit_it_is(start):
    process, _, log = start(40)
    assert process.wait(30) == 1
    assert "ulimit -n: is 40" in log.read_text()
    assert "Traceback" not in log.read_text()
