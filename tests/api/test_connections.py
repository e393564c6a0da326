"""Connections that say nothing: they have to leave when places become rare, and nobody else does."""

import contextlib
import socket
import threading
import time

import httpx2
import pytest

from appliance.api.connections import (
    CROWDED,
    SHARE,
    SILENT_NS,
    SILENT_OF_MANY_NS,
    Connections,
    _open,
)
from tests.appliance import HandClock
from tests.server import EMBED, ROOT

PLACES = 100


def peers(count, network="10.0.0", first=0):
    return {(f"{network}.{number % 200}", 1000 + number) for number in range(first, first + count)}


def of_one(count, address="10.9.9.9"):
    return {(address, 2000 + number) for number in range(count)}


class Crowd:
    """Connections over a clock that the test moves; the first look sees all of them."""

    def __init__(self, found):
        self.clock = HandClock()
        self.watch = Connections(self.clock, port=1, places=PLACES)
        self.found = found
        self.watch.leaving(found, self.clock.monotonic_ns())

    def after(self, ns):
        self.clock.mono_ns += ns
        return set(self.watch.leaving(self.found, self.clock.monotonic_ns()))


def test_nobody_has_to_leave_while_there_is_room():
    crowd = Crowd(peers(int(PLACES * CROWDED)))
    assert crowd.after(100 * SILENT_NS) == set()


def test_in_a_crowd_the_silent_have_to_leave():
    crowd = Crowd(peers(int(PLACES * CROWDED) + 1))
    assert crowd.after(SILENT_NS - 1) == set()
    assert crowd.after(1) == crowd.found


def test_whose_request_is_being_answered_stays_and_has_a_new_start_after_it():
    crowd = Crowd(peers(80))
    asking = min(crowd.found)
    with crowd.watch.asking(asking):
        assert crowd.after(SILENT_NS) == crowd.found - {asking}
    assert asking not in crowd.after(SILENT_NS - 1)
    assert asking in crowd.after(1)


def test_one_address_with_more_than_its_share_has_less_time():
    many, others = of_one(int(PLACES * SHARE) + 1), peers(40)
    crowd = Crowd(many | others)
    assert crowd.after(SILENT_OF_MANY_NS) == many
    assert crowd.after(SILENT_NS) == many | others


def test_an_address_within_its_share_has_the_same_time_as_all():
    crowd = Crowd(of_one(int(PLACES * SHARE)) | peers(40))
    assert crowd.after(SILENT_OF_MANY_NS) == set()


def test_what_is_remembered_is_bounded():
    clock = HandClock()
    watch = Connections(clock, port=1, places=PLACES)
    for number in range(50 * PLACES):
        with watch.asking(("10.0.0.1", number)):
            pass
    assert len(watch._silent_since_ns) <= 2 * PLACES
    assert "[0 asking" in repr(watch)


def test_the_connections_of_a_port_are_found_and_nothing_leaks():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("", 0)) as other:
        port = server.getsockname()[1]
        clients, accepted = [], []
        for of in (server, server, other):
            clients.append(socket.create_connection(("127.0.0.1", of.getsockname()[1])))
            accepted.append(of.accept()[0])
        found = [peer for _, peer in _open(port)]
        assert sorted(found) == sorted(each.getsockname() for each in clients[:2])
        before = {number for number in range(200) if _is_open(number)}
        for _ in range(3):
            assert len([peer for _, peer in _open(port)]) == 2
        assert {number for number in range(200) if _is_open(number)} == before
        for each in clients + accepted:
            each.close()


def _is_open(number):
    import os

    with contextlib.suppress(OSError):
        os.fstat(number)
        return True
    return False


# -- a real server ---------------------------------------------------------------------------------


def is_closed(connection):
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.fixture
def few(make_server, monkeypatch):
    """Return a server that has room for few connections."""
    import subprocess
    import sys

    server = make_server()
    with server.log.open("ab") as log:
        server.process = subprocess.Popen(
            [
                *("sh", "-c", 'ulimit -n 200; exec "$0" "$@"'),
                *(sys.executable, "-m", "appliance", "serve", "--fake", "--no-supervise"),
                *("--data-dir", str(server.data_dir), "--port", str(server.port)),
            ],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{server.url}/health", timeout=5).status_code == 200:
                return server
        time.sleep(0.05)
    raise AssertionError(server.log.read_text())


def test_silent_connections_take_nobody_elses_place(few):
    places = 200 - 48
    key = _mint(few)
    silent = []
    stop = threading.Event()

    def flood():
        """Open more connections than there are places, again and again."""
        while not stop.is_set():
            try:
                silent.append(socket.create_connection(("127.0.0.1", few.port), 1))
            except OSError:
                time.sleep(0.01)
            if len(silent) > 4 * places:
                time.sleep(0.05)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        while len(silent) <= places:
            time.sleep(0.01)
        for _ in range(3):
            with httpx2.Client(timeout=30) as client:
                body = {"model": EMBED, "input": "A man is eating food."}
                answer = client.post(f"{few.url}/v1/embeddings", json=body, headers=key)
            assert answer.status_code == 200
    finally:
        stop.set()
        thread.join(10)
    assert sum(map(is_closed, silent)) > 0
    for each in silent:
        each.close()
    assert "connections that said nothing" in few.log.read_text()


def _mint(server):
    token = (server.data_dir / "admin.token").read_text().strip()
    answer = httpx2.post(
        f"{server.url}/admin/v1/keys",
        json={"name": "a", "credit": "unlimited"},
        headers={"authorization": f"Bearer {token}"},
        timeout=30,
    )
    return {"authorization": f"Bearer {answer.json()['key']}"}


def test_whether_anybody_is_connected_is_known_and_a_listener_is_nobody():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        watch = Connections(HandClock(), port=port, places=PLACES)
        assert not watch.are_open()
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            with accepted:
                assert watch.are_open()
        assert not watch.are_open()
