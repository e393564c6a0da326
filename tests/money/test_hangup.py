"""A client that hangs up, or closes its own side, at any moment of a call is not charged for it.

`HANGUPS` says how many calls for each moment (6 unless the environment says otherwise).
"""

import json
import os
import socket
import time
from statistics import median

import pytest

from tests.money.audit import Books
from tests.server import EMBED

HANGUPS = int(os.environ.get("HANGUPS", "6"))
MOMENTS = [step / 10 for step in range(14)]
"""When the client leaves, in parts of the time that a call takes here."""
LATE = 0.2
"""Of the calls, those whose client may have left between its charge and its answer. The answer is
handed to the HTTP server at once, and what is lost behind that cannot be known here."""


def request(key: str, number: int, header: str = "") -> bytes:
    body = json.dumps({"model": EMBED, "input": f"a text of some words, number {number} " * 6})
    return (
        f"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
        f"x-request-id: call-{number}\r\n{header}content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def a_call_takes_s(port: int, key: str) -> float:
    taken = []
    for number in range(-20, 0):
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(request(key, number))
            assert answered(client)
        taken.append(time.perf_counter() - began)
    return median(taken)


def answered(client: socket.socket) -> bool:
    client.settimeout(5)
    try:
        return client.recv(15).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


# Where other tests take the cores, the server is stopped for as long as a whole call takes between its
# charge and its answer, and nearly half of the clients leave there.
@pytest.mark.alone
@pytest.mark.parametrize("how", ["hangs up", "closes its own side"])
def test_a_client_that_leaves_at_any_moment_pays_only_for_an_answer(make_server, how):
    server = make_server().start("--fake")
    key = str(server.mint(credit="1")["key"])
    usual_s = a_call_takes_s(server.port, key)
    read = {f"call-{number}" for number in range(-20, 0)}
    calls = 0
    for moment in MOMENTS:
        for _ in range(HANGUPS):
            calls += 1
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(request(key, calls))
                time.sleep(moment * usual_s)
                if how == "closes its own side":
                    client.shutdown(socket.SHUT_WR)
                    if answered(client):
                        read.add(f"call-{calls}")
                else:
                    client.setblocking(False)
                    try:
                        came = client.recv(15)
                    except BlockingIOError:
                        came = b""
                    if came:
                        read.add(f"call-{calls}")
    assert server.held() == 0
    assert server.stop() == 0
    books = Books(server.data_dir)
    assert books.problems == []
    paid = {name for name in books.charges if name not in books.refunded}
    assert read <= paid
    unread = paid - read
    usual = f"a call takes {usual_s * 1e3:.1f} ms"
    print(f"\n{how}: {calls} calls, {len(unread)} charged unread; {usual}")  # noqa: T201
    assert len(unread) <= LATE * calls


def test_a_client_that_leaves_and_sends_the_call_again_pays_for_it_once(make_server):
    server = make_server().start("--fake")
    key = str(server.mint(credit="1")["key"])
    usual_s = a_call_takes_s(server.port, key)
    sent = 20
    number = 0
    for moment in MOMENTS:
        for _ in range(HANGUPS):
            number += 1
            content = request(key, number, f"idempotency-key: again-{number}\r\n")
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(content)
                time.sleep(moment * usual_s)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with socket.create_connection(("127.0.0.1", server.port)) as client:
                    client.sendall(content)
                    if answered(client):
                        sent += 1
                        break
    assert server.held() == 0
    assert server.stop() == 0
    books = Books(server.data_dir)
    assert books.problems == []
    assert sent == 20 + number
    price = books.charged["call--1"]
    assert sum(books.posted.values()) == 10**12 - price * 20 - sum(
        books.charged[f"call-{each}"] for each in range(1, number + 1)
    )
