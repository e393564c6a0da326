"""Connections that send no request, or not the whole of one: the server closes them in time."""

import os
import socket
import subprocess
import sys
import time

import pytest

from appliance.http_server import HEADER_TIMEOUT_MS
from tests.server import QUICK, ROOT, free_port

LIMIT_S = 1.0
SLACK_S = 4.0
START = """
import sys
import appliance.http_server
appliance.http_server.HEADER_TIMEOUT_MS = int(sys.argv.pop(1))
from appliance.cli.main import main
main()
"""
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """The port of a server whose limit for a head is short."""
    folder, port = tmp_path_factory.mktemp("idle"), free_port()
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-c",
                    START,
                    str(int(LIMIT_S * 1000)),
                    "serve",
                    "--fake",
                    "--no-supervise",
                ),
                *("--data-dir", str(folder / "data"), "--port", str(port)),
            ],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            env={**os.environ, **QUICK},
        )
    deadline = time.monotonic() + 60
    while "listening on" not in log.read_text() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield port
    process.terminate()
    assert process.wait(40) == 0
    assert "Traceback" not in log.read_text()


def closed_after(connection):
    """Return the seconds until the server closes, reading whatever it says before."""
    began = time.monotonic()
    connection.settimeout(LIMIT_S + SLACK_S)
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def test_a_head_has_a_minute():
    assert HEADER_TIMEOUT_MS == 60_000


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HT", HEALTH[:-2]], ids=["nothing", "a line", "a head"]
)
def test_a_connection_whose_head_stalls_is_closed(port, sent):
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(sent)
        assert LIMIT_S / 2 < closed_after(connection) < LIMIT_S + SLACK_S


def test_a_head_that_drips_is_cut_at_the_limit_all_the_same(port):
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 - one of many sends
            connection.sendall(b"GET /health HTTP/1.1\r\nx: ")
            while time.monotonic() - began < LIMIT_S + SLACK_S:
                connection.sendall(b"a")
                time.sleep(0.1)  # it is the client that is slow
        assert time.monotonic() - began > LIMIT_S / 2


def test_a_kept_connection_that_is_idle_is_closed_and_one_in_use_is_not(port):
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        began = time.monotonic()
        while time.monotonic() - began < 2 * LIMIT_S:
            connection.sendall(HEALTH)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
            time.sleep(LIMIT_S / 4)  # shorter than the limit
        assert LIMIT_S / 4 < closed_after(connection) < LIMIT_S + SLACK_S
