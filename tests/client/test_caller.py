"""Whatever a server answers, a caller raises one family of errors, and in time."""

import asyncio
import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from appliance.client import caller as module
from appliance.client import verbs
from appliance.client.caller import AsyncCaller, Caller
from appliance.client.errors import ServerHangs, ServerLost, ServerRefused, StrangeAnswer
from appliance.client.verbs import Verb
from appliance.core.errors import ServerUnreachable
from appliance.wire.keys import KeyList
from tests.server import free_port

DEEP = b"[" * 100_000
BODIES = [
    b"",
    b"<html>502 Bad Gateway</html>",
    b"null",
    b"[]",
    b'"text"',
    b"7",
    b'{"data": 7}',
    b'{"data": [7]}',
    b'{"detail": {"a": 1}}',
    b'{"error": "no"}',
    b'{"data": "\xff\xfe"}',
    DEEP,
    b'{"data": ' + DEEP,
]


@contextmanager
def answering(raw):
    """A server that gives these bytes to every connection; None: it accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def serve():
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    kept.append(connection)
                    connection.settimeout(5)
                    if raw is not None:
                        with suppress(OSError):
                            connection.recv(65_536)
                            connection.sendall(raw)
                            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in kept:
            connection.close()


def http(status, body, headers=b""):
    head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n" % (status, len(body), headers)
    return head + body


def asked(url, work):
    async def run():
        caller = AsyncCaller(url, "token")
        try:
            return await work(caller)
        finally:
            await caller.close()

    return asyncio.run(run())


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:24].decode("latin-1"))
def test_an_answer_of_another_shape_is_one_of_our_errors(status, body):
    expected = StrangeAnswer if status == 200 else ServerRefused
    with answering(http(status, body)) as url:
        for work in (
            lambda caller: caller.do(verbs.LIST_KEYS),
            lambda caller: caller.do(verbs.STATS, "60"),
            lambda caller: caller.embed("gr-key", "m", ["a"]),
            lambda caller: caller.rerank("gr-key", "m", "q", ["a"]),
        ):
            with pytest.raises(expected) as caught:
                asked(url, work)
            assert isinstance(caught.value, ServerUnreachable)
            assert caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": []}',
        b'{"data": [{"embedding": []}]}',
        b'{"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]}',
        b'{"data": [{"embedding": [1e999]}]}',
        b'{"data": [{"embedding": [null]}]}',
        b'{"data": [{"embedding": "AAAA"}]}',
    ],
)
def test_vectors_that_are_none_are_an_error(body):
    with answering(http(200, body)) as url, pytest.raises(StrangeAnswer):
        asked(url, lambda caller: caller.embed("gr-key", "m", ["a", "b"]))


def test_a_good_paid_answer_is_given_with_its_cost():
    body = b'{"data": [{"embedding": [0.6, 0.8]}], "usage": {}}'
    with answering(http(200, body, b"x-cost: 0.000000056\r\n")) as url:
        found = asked(url, lambda caller: caller.embed("gr-key", "m", ["a"]))
    assert (found.rows, found.cost) == ([[0.6, 0.8]], "0.000000056")
    assert found.ms > 0


@pytest.mark.parametrize(
    "raw", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_connection_that_breaks_is_a_lost_server(raw):
    with answering(raw) as url, pytest.raises(ServerLost) as caught:
        asked(url, lambda caller: caller.do(verbs.LIST_KEYS))
    assert not isinstance(caught.value, ServerHangs)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "nonsense", "ftp://x", "http://[::1"])
def test_an_address_where_nobody_listens_is_a_lost_server(url):
    with pytest.raises(ServerLost):
        asked(url.format(port=free_port()), lambda caller: caller.do(verbs.LIST_KEYS))


def test_a_token_that_is_no_token_is_an_error_of_ours():
    with pytest.raises(ServerLost):
        AsyncCaller("http://127.0.0.1:1", "t\u00f6ken")


@pytest.mark.parametrize("raw", [None, b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_server_that_hangs_is_said_to_hang_and_in_time(raw):
    quick = Verb("GET", "/keys", KeyList, deadline_s=0.3)
    with answering(raw) as url, pytest.raises(ServerLost) as caught:
        asked(url, lambda caller: caller.do(quick))
    if raw is None:
        assert isinstance(caught.value, ServerHangs)
        assert "hangs" in caught.value.message


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_who_gives_up_a_change_is_told_that_it_may_be_made(method):
    quick = Verb(method, "/keys", KeyList, deadline_s=0.3)
    with answering(None) as url, pytest.raises(ServerHangs) as caught:
        asked(url, lambda caller: caller.do(quick))
    assert ("look before you repeat it" in caught.value.message) == (method != "GET")


def test_a_command_waits_longer_than_what_is_drawn_again_and_again(monkeypatch):
    waits = []

    async def send(_self, _method, _path, _content, _headers, deadline_s):
        waits.append(deadline_s)
        raise ServerHangs("it hangs")

    monkeypatch.setattr(AsyncCaller, "_send", send)
    with Caller("http://127.0.0.1:1", "token") as caller:
        for verb in (verbs.LIST_KEYS, verbs.VERIFY_MODEL):
            with pytest.raises(ServerHangs):
                caller.do(verb)
    with pytest.raises(ServerHangs):
        asked("http://127.0.0.1:1", lambda caller: caller.do(verbs.LIST_KEYS))
    assert waits == [module.PATIENCE_S, verbs.LONG_S, verbs.POLL_S]


def test_a_server_that_drips_its_answer_hangs_too():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not stop.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        quick = Verb("GET", "/keys", KeyList, deadline_s=0.5)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServerHangs):
            asked(url, lambda caller: caller.do(quick))
        stop.set()
        thread.join(5)


def test_paid_calls_have_a_deadline(monkeypatch):
    monkeypatch.setattr(module, "PAID_S", 0.3)
    with answering(None) as url, pytest.raises(ServerHangs):
        asked(url, lambda caller: caller.embed("gr-key", "m", ["a"]))


def test_the_caller_without_a_loop_asks_again_and_again_and_raises_the_same():
    with answering(http(200, b'{"data": []}')) as url, Caller(url, "token") as caller:
        assert caller.do(verbs.LIST_KEYS).data == []
        assert caller.do(verbs.LIST_KEYS).data == []
        with pytest.raises(StrangeAnswer):
            caller.do(verbs.STATS, "60")


def test_neither_caller_shows_its_token():
    assert "secret" not in repr(AsyncCaller("http://127.0.0.1:1", "secret"))


def test_a_command_that_is_interrupted_can_still_send_its_last_request():
    """`models pull` cancels its download after Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            silent, _ = listener.accept()
            silent.recv(65_536)
            os.kill(os.getpid(), signal.SIGINT)
            with silent, listener.accept()[0] as second:
                second.recv(65_536)
                second.sendall(http(200, b'{"data": []}'))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Caller(f"http://127.0.0.1:{listener.getsockname()[1]}", "token") as caller:
            with pytest.raises(KeyboardInterrupt):
                caller.do(verbs.LIST_KEYS)
            assert caller.do(verbs.LIST_KEYS).data == []
        thread.join(5)
