"""One port, one server: also when two start at the same moment."""

import socket
import subprocess
import sys
import time

import pytest

from appliance.core.errors import InvalidSettings
from appliance.port import claimed
from tests.server import ROOT, free_port


def start(data_dir, port, *python):
    return subprocess.Popen(
        [
            sys.executable,
            *python,
            "-m",
            "appliance",
            "serve",
            "--fake",
            "--data-dir",
            str(data_dir),
            "--port",
            str(port),
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def listens(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True
    except OSError:
        return False


def test_of_two_servers_that_start_together_on_one_port_one_is_refused(tmp_path):
    port = free_port()
    both = [start(tmp_path / name, port) for name in ("a", "b")]
    deadline = time.monotonic() + 60
    while all(each.poll() is None for each in both) and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = [each for each in both if each.poll() is not None]
    running = [each for each in both if each.poll() is None]
    assert len(ended) == len(running) == 1
    while not listens(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    running[0].terminate()
    running[0].communicate(timeout=30)
    assert running[0].returncode == 0
    assert f"cannot listen on 127.0.0.1:{port}" in ended[0].communicate(timeout=30)[1]
    assert ended[0].returncode == 1


def test_a_port_is_claimed_once_and_free_again_afterwards():
    port = free_port()
    with (
        claimed("127.0.0.1", port),
        pytest.raises(InvalidSettings, match="another server starts there"),
        claimed("127.0.0.1", port),
    ):
        pass
    with claimed("127.0.0.1", port):
        pass


def test_a_server_without_its_assertions_does_not_start(tmp_path):
    server = start(tmp_path / "data", free_port(), "-O")
    said = server.communicate(timeout=60)[1]
    assert server.returncode == 1
    assert "-O" in said
    assert "Traceback" not in said
