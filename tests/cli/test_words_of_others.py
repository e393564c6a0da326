"""A hub or a server elsewhere that cannot be used: what was tried, where, and what to do."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.server import free_port


@contextmanager
def answering(status):
    """Yield the address of a server that answers everything with a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def without_proxy():
    """Return the environment without the proxy of this machine, which is no part of the tests."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


def gigarouter(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "appliance", *map(str, arguments)],
        env={**without_proxy(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def hub_finding(tmp_path, endpoint, **environment):
    done = gigarouter(
        *("doctor", "--hub", "--json", "--data-dir", tmp_path),
        **{"HF_ENDPOINT": endpoint, **environment},
    )
    findings = {each["name"]: each for each in json.loads(done.stdout)["data"]}
    return findings["hub"]


@pytest.mark.parametrize("status", [200, 302, 404])
def test_a_hub_that_answers_is_fine(tmp_path, status):
    with answering(status) as endpoint:
        found = hub_finding(tmp_path, endpoint)
    assert (found["status"], found["said"]) == ("ok", f"{endpoint} answers")


def test_a_hub_with_a_fault_of_its_own_is_said(tmp_path):
    with answering(503) as endpoint:
        found = hub_finding(tmp_path, endpoint)
    assert found["status"] == "warn"
    assert f"{endpoint} answers 503" in found["said"]
    assert found["fix"] == "models that are here are served without it"


@pytest.mark.parametrize("where", ["http://127.0.0.1:{port}", "http://no-such-host.invalid"])
def test_a_hub_that_is_not_there_is_said_with_its_address(tmp_path, where):
    endpoint = where.format(port=free_port())
    found = hub_finding(tmp_path, endpoint)
    assert found["status"] == "warn"
    assert endpoint.removeprefix("http://") in found["said"]
    assert "Errno" not in found["said"]


def test_the_secrets_of_an_address_are_not_shown(tmp_path):
    found = hub_finding(tmp_path, f"http://anna:hunter2@127.0.0.1:{free_port()}")
    assert "hunter2" not in json.dumps(found)


def test_who_is_offline_asks_nobody(tmp_path):
    with answering(500) as endpoint:
        found = hub_finding(tmp_path, endpoint, HF_HUB_OFFLINE="1")
    assert found["status"] == "ok"
    assert "offline" in found["said"]


def test_without_being_asked_to_the_doctor_asks_nobody(tmp_path):
    done = gigarouter(
        "doctor", "--json", "--data-dir", tmp_path, HF_ENDPOINT="http://no-such-host.invalid"
    )
    assert "hub" not in [each["name"] for each in json.loads(done.stdout)["data"]]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{port}", "127.0.0.1:{port}"),
        ("http://no-such-host.invalid", "no-such-host.invalid"),
        ("https://127.0.0.1:{port}", "127.0.0.1:{port}"),
    ],
)
def test_a_server_elsewhere_that_is_not_there_is_one_line_with_its_address(tmp_path, url, said):
    port = free_port()
    path = tmp_path / "texts.txt"
    path.write_text("one\n")
    command = ("embed", path, "--model", "some/model", "--url", url.format(port=port))
    running = subprocess.Popen(
        [sys.executable, "-m", "appliance", *map(str, command)],
        env={**without_proxy(), "GIGAROUTER_KEY": "gr-none"},
        stderr=subprocess.PIPE,
        text=True,
    )
    # It tries again for as long as a server may take to start; what it waits for is said at once.
    try:
        line = running.stderr.readline()
    finally:
        running.kill()
        running.communicate(timeout=60)
    assert said.format(port=port) in line
    assert "Check --url" in line
    assert "Errno" not in line
    assert not list(tmp_path.glob("*.npy"))
