"""HTTP's own rules (RFC 9110, RFC 9112), on a raw socket and through the application."""

import asyncio
import gzip
import json
import re
import socket
import zlib
from dataclasses import replace

import pytest

from appliance.api.error_responses import TABLE
from appliance.api.request import UNREAD_BYTES
from appliance.core.limits import Limits
from tests.api.test_authorization import ask, routes
from tests.appliance import bench
from tests.server import EMBED

P = b"/v1/embeddings"
BODY = json.dumps({"model": EMBED, "input": "a"}).encode()
QUIET_S = 0.7
"""For so long a server that answers nothing more is listened to."""


@pytest.fixture(scope="module")
def key(server):
    return b"authorization: Bearer " + str(server.mint(name="http")["key"]).encode()


def exchange(server, *pieces):
    """Send bytes as they are; return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while piece := connection.recv(65_536):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass  # what came before counts
        return received


def request(method, path, *lines, body=b"", length=None, version=b"1.1", host=b"host: localhost"):
    named = [b"%s %s HTTP/%s" % (method, path, version), *([host] if host else []), *lines]
    if length is not None or body:
        named.append(b"content-length: %d" % (len(body) if length is None else length))
    return b"\r\n".join([*named, b"connection: close", b"", b""]) + body


def parsed(received):
    """(status, headers, body) of the first answer."""
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


# -- Expect -------------------------------------------------------------------------------------

CONTINUE = b"expect: 100-continue"


def test_a_good_request_is_told_to_continue_and_served(server, key):
    head = request(b"POST", P, key, CONTINUE, length=len(BODY))
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("with_key", "lines", "length", "expected"),
    [
        (True, [], 50_000_000, 413),
        (False, [], 50_000_000, 413),
        (False, [], 100, 401),
        (False, [b"transfer-encoding: chunked"], None, 401),
        (False, [b"authorization: Bearer gr-nothing"], 100, 401),
        (True, [b"content-encoding: gzip"], 100, 415),
        (True, [b"content-type: application/json; charset=utf-16"], 100, 415),
        (True, [b"idempotency-key: a", b"idempotency-key: b"], 100, 400),
    ],
)
def test_what_will_be_refused_is_refused_without_asking_for_its_body(
    server, key, with_key, lines, length, expected
):
    kept = [key] * with_key + lines
    for expects in (CONTINUE, b"Expect: 100-Continue"):
        received = exchange(server, request(b"POST", P, *kept, expects, length=length))
        assert parsed(received)[0] == expected, received
        assert b"100 Continue" not in received


def test_the_operators_routes_ask_for_no_body_either(server):
    for path in (b"/admin/v1/keys", b"/admin/v1/backup"):
        received = exchange(server, request(b"POST", path, CONTINUE, length=100))
        assert parsed(received)[0] == 401
        assert b"100 Continue" not in received


def test_unknown_expectations_fail_and_http_1_0_has_none(server, key):
    for line in (b"expect: the-moon", b"expect: 100-continue, the-moon"):
        status, headers, body = parsed(exchange(server, request(b"POST", P, key, line, body=BODY)))
        assert status == 417
        assert json.loads(body)["error"]["code"] == "expectation_failed"
        assert headers["content-type"] == "application/json"
    old = request(b"POST", P, key, b"expect: the-moon", body=BODY, version=b"1.0")
    assert parsed(exchange(server, old))[0] == 200
    old = request(b"POST", P, key, CONTINUE, body=BODY, version=b"1.0")
    assert parsed(exchange(server, old))[0] == 200


# -- the table ----------------------------------------------------------------------------------

JSON_TYPE = {"content-type": "application/json"}
NO_STORE = {**JSON_TYPE, "cache-control": "no-store"}
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


def post(*lines, body=BODY, path=P, **more):
    return lambda key: request(b"POST", path, key, *lines, body=body, **more)


def plain(method, path, *lines, **more):
    return lambda _: request(method, path, *lines, **more)


def framed(*lines, rest=CHUNKED):
    return lambda key: request(b"POST", P, key, *lines) + rest


CASES = {
    # methods and paths
    "HEAD": (plain(b"HEAD", b"/health"), 200, JSON_TYPE),
    "HEAD where only POST is": (plain(b"HEAD", P), 405, {"allow": "options, post"}),
    "OPTIONS": (plain(b"OPTIONS", b"/health"), 204, {"allow": "get, head, options"}),
    "DELETE": (plain(b"DELETE", b"/health"), 405, {**NO_STORE, "allow": "get, head, options"}),
    "TRACE": (plain(b"TRACE", b"/health"), 405, {"allow": "get, head, options"}),
    "an unknown method": (plain(b"FOO", b"/health"), 405, {"allow": "get, head, options"}),
    "a path that is none": (plain(b"GET", b"/nothing"), 404, NO_STORE),
    "an absolute target": (plain(b"GET", b"http://x/health"), 200, {}),
    "a slash behind": (plain(b"GET", b"/health/"), 200, {}),
    "two slashes": (plain(b"GET", b"//v1//models"), 404, NO_STORE),
    "two slashes within": (plain(b"GET", b"/v1//models"), 404, NO_STORE),
    "percent encoding": (plain(b"GET", b"/v1/%6dodels"), 404, NO_STORE),
    "a slash that is encoded": (plain(b"GET", b"/v1%2fmodels"), 404, NO_STORE),
    "an encoded slash": (
        plain(b"GET", b"/v1/models/" + EMBED.replace("/", "%2F").encode()),
        200,
        {},
    ),
    "dots": (plain(b"GET", b"/v1/../health"), 404, {}),
    "a long path": (plain(b"GET", b"/" + b"a" * 70_000), 414, {}),
    # hosts and versions
    "no host": (plain(b"GET", b"/health", host=None), 400, NO_STORE),
    "an empty host": (plain(b"GET", b"/health", host=b"host:"), 400, {}),
    "two hosts": (plain(b"GET", b"/health", b"host: y"), 400, {}),
    "a host that is another's": (plain(b"GET", b"/health", host=b"host: evil.test"), 421, NO_STORE),
    "HTTP/1.0 without a host": (plain(b"GET", b"/health", host=None, version=b"1.0"), 200, {}),
    # framing
    "chunks": (framed(b"transfer-encoding: chunked"), 200, {}),
    # The server below drops the length, as RFC 9112 allows, and closes the connection.
    "chunks and a length": (
        framed(b"transfer-encoding: chunked", b"content-length: 5"),
        200,
        {"connection": "close"},
    ),
    "compressed chunks": (framed(b"transfer-encoding: gzip, chunked"), 501, NO_STORE),
    "no chunks": (framed(b"transfer-encoding: identity"), 400, {}),
    "two equal lengths": (post(b"content-length: %d" % len(BODY)), 200, {}),
    "two lengths": (post(b"content-length: 3"), 400, {}),
    "neither length nor chunks": (post(body=b""), 400, NO_STORE),
    # what the body is
    "form's type": (post(b"content-type: application/x-www-form-urlencoded"), 200, {}),
    "UTF-8": (post(b'content-type: application/json; charset="UTF-8"'), 200, {}),
    "ASCII": (post(b"content-type: application/json;charset=us-ascii"), 200, {}),
    "Latin-1": (
        post(b"content-type: application/json; charset=iso-8859-1"),
        415,
        {**NO_STORE, "accept": "application/json"},
    ),
    "gzip": (
        post(b"content-encoding: gzip", body=gzip.compress(BODY)),
        415,
        {**NO_STORE, "accept-encoding": "identity"},
    ),
    "deflate after identity": (
        post(b"content-encoding: identity, deflate", body=zlib.compress(BODY)),
        415,
        {"accept-encoding": "identity"},
    ),
    "zstd on a second line": (
        post(b"content-encoding: identity", b"content-encoding: zstd"),
        415,
        {"accept-encoding": "identity"},
    ),
    "identity": (post(b"content-encoding: identity"), 200, {}),
    # headers
    "two idempotency keys": (post(b"idempotency-key: a", b"idempotency-key: b"), 400, NO_STORE),
    "two authorizations": (post(b"authorization: Bearer x"), 400, {}),
    "two types": (post(b"content-type: a/b", b"content-type: a/b"), 400, {}),
    "two tiers": (post(b"x-tier: batch", b"x-tier: realtime"), 400, {}),
    "two preferences": (
        post(b"prefer: respond-async", b"prefer: wait=7"),
        200,
        {"preference-applied": "wait=7"},
    ),
    "a long value": (post(b"x: " + b"a" * 30_000), 200, {}),
    "a head far above 64 KiB": (post(b"x: " + b"a" * 300_000), 431, {}),
    "many headers": (post(*(b"x-%d: a" % number for number in range(200))), 431, {}),
    "a folded line": (plain(b"GET", b"/health", b"x: a\r\n b"), 400, {}),
    "a space before the colon": (plain(b"GET", b"/health", b"x : a"), 400, {}),
    "a type that is not ours": (plain(b"GET", b"/health", b"accept: text/html"), 200, JSON_TYPE),
    "a range": (plain(b"GET", b"/v1/models", b"range: bytes=0-3"), 200, {}),
    "an upgrade": (plain(b"GET", b"/health", b"upgrade: websocket"), 200, {}),
    "no key": (plain(b"POST", P, body=BODY), 401, {**NO_STORE, "www-authenticate": "bearer"}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_http_allows_is_answered_as_it_says(server, key, case):
    make, expected, wanted = CASES[case]
    received = exchange(server, make(key))
    if expected == 431 and not received:
        return  # the rest of the head was on its way when the connection was closed
    status, headers, body = parsed(received)
    assert status == expected, received[:300]
    assert {name: headers.get(name) for name in wanted} == wanted
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d gmt", headers["date"])
    if headers.get("content-type") == "application/json":
        assert headers["x-request-id"]
        if not make(key).startswith(b"HEAD"):
            json.loads(body)
            assert int(headers["content-length"]) == len(body)


def test_a_refusal_says_what_was_wrong(server, key):
    told = {
        "gzip": "Content-Encoding 'gzip' is not read here",
        "Latin-1": "charset 'iso-8859-1' is not read here",
        "two idempotency keys": "Idempotency-Key is there twice",
        "compressed chunks": "Transfer-Encoding 'gzip, chunked'",
        "no host": "one Host header",
        "neither length nor chunks": "The body is empty",
    }
    for case, words in told.items():
        body = parsed(exchange(server, CASES[case][0](key)))[2]
        assert words in json.loads(body)["detail"]


# -- every route --------------------------------------------------------------------------------


def test_head_is_get_without_a_body_and_allow_names_it_on_every_route(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            app = on.appliance.app
            minted = await on.mint()
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            user = {"authorization": f"Bearer {minted.key}"}
            by_path = {}
            for method, path in routes(app):
                by_path.setdefault(path, set()).add(method)
            assert len(by_path) > 20
            for path, methods in by_path.items():
                actual = re.sub(r"\{key_id[^}]*\}", minted.id, path)
                actual = re.sub(r"/\{model_id[^}]*\}", f"/{EMBED}", actual)
                actual = re.sub(r"\{[^}]*\}", "nothing", actual)
                headers = token if path.startswith("/admin") else user
                headers = headers | {"accept-encoding": "identity"}  # lengths are compared
                named = tuple(headers.items())
                allowed = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
                for method in ("OPTIONS", "PATCH"):
                    told = await ask(app, method, actual, headers=named)
                    assert told.status == (204 if method == "OPTIONS" else 405)
                    assert told.headers["allow"] == ", ".join(sorted(allowed)), path
                if path.endswith("/events"):
                    continue
                head = await on.client.request("HEAD", actual, headers=headers)
                assert head.content == b""
                if "GET" in methods:
                    got = await on.client.get(actual, headers=headers)
                    kept = ("content-type", "cache-control", "www-authenticate", "allow")
                    assert head.status_code == got.status_code, path
                    assert [head.headers.get(n) for n in kept] == [got.headers.get(n) for n in kept]
                    assert got.headers["content-type"].count("charset") <= 1
                    assert abs(int(head.headers["content-length"]) - len(got.content)) < 50, path
                else:
                    assert head.status_code == 405

    asyncio.run(story())


def test_head_of_a_stream_ends_with_its_head(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            headers = {"authorization": f"Bearer {on.directory.admin_token()}"}
            async with asyncio.timeout(60):
                head = await on.client.request("HEAD", "/admin/v1/events", headers=headers)
            assert head.status_code == 200
            assert head.headers["content-type"].startswith("text/event-stream")
            assert head.content == b""

    asyncio.run(story())


def test_whoever_may_come_back_is_told_in_whole_seconds():
    for kind, row in TABLE.items():
        if row.status in (429, 503) and kind.__name__ != "EngineDied":
            more = {"limit": "x", "model": "x", "reason": "x"}
            names = kind.__init__.__code__.co_varnames[: kind.__init__.__code__.co_argcount + 5]
            chosen = {name: value for name, value in more.items() if name in names}
            error = kind(**chosen, retry_after_s=0) if "reason" not in chosen else kind("x")
            assert type(error.retry_after_s) is int
            assert error.retry_after_s >= 1


# -- bodies and time ----------------------------------------------------------------------------


def scope_of(method, path, *headers):
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "server": ("127.0.0.1", 8642),
        "client": ("127.0.0.1", 50_000),
        "headers": [(b"host", b"localhost"), *headers],
    }


async def endless(app, scope, *, piece=16_384):
    """Return (status, bytes that were read) for a client that never stops sending."""
    read, sent = 0, {}

    async def receive():
        nonlocal read
        await asyncio.sleep(0)
        read += piece
        return {"type": "http.request", "body": b"a" * piece, "more_body": True}

    async def send(message):
        sent.setdefault("status", message.get("status"))

    async with asyncio.timeout(20):
        await app(scope, receive, send)
    return sent["status"], read


def test_nobody_without_a_good_key_gets_more_than_64_kib_read(tmp_path):
    async def story():
        limits = replace(Limits(), body_bytes_max=1_000_000)
        async with bench(tmp_path / "data", preload=False, limits=limits) as on:
            app = on.appliance.app
            bad = (b"authorization", b"Bearer gr-nothing")
            for headers in ((), (bad,)):
                for length in (None, b"900000", b"50000000"):
                    sized = () if length is None else ((b"content-length", length),)
                    for path in (
                        "/v1/embeddings",
                        "/v1/rerank",
                        "/admin/v1/keys",
                        "/admin/v1/backup",
                    ):
                        told, read = await endless(app, scope_of("POST", path, *headers, *sized))
                        assert told == 401, path
                        assert read <= UNREAD_BYTES, (path, length)
            good = (b"authorization", (await on.key())["authorization"].encode())
            told, read = await endless(app, scope_of("POST", "/v1/embeddings", good))
            assert told == 413
            assert 4_000_000 <= read <= 6_000_000, "whoever may call can read why it is refused"

    asyncio.run(story())


def test_a_stranger_that_sends_slowly_is_left_after_a_second(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            loop, sent = asyncio.get_running_loop(), {}

            async def receive():
                await asyncio.Event().wait()

            async def send(message):
                sent.setdefault("status", message.get("status"))

            began = loop.time()
            await on.appliance.app(scope_of("POST", "/v1/embeddings"), receive, send)
            assert sent["status"] == 401
            assert loop.time() - began < 5

    asyncio.run(story())


@pytest.mark.parametrize("first", [b"", BODY[:9]])
def test_a_body_that_does_not_arrive_in_time_is_refused(tmp_path, first):
    async def story():
        limits = replace(Limits(), body_seconds_max=0.3)
        async with bench(tmp_path / "data", preload=False, limits=limits) as on:
            good = (b"authorization", (await on.key())["authorization"].encode())
            token = (b"authorization", f"Bearer {on.directory.admin_token()}".encode())
            for path, header in (("/v1/embeddings", good), ("/admin/v1/keys", token)):
                pieces, bodies, sent = [first], [], {}

                async def receive(pieces=pieces):
                    if pieces:
                        return {"type": "http.request", "body": pieces.pop(), "more_body": True}
                    await asyncio.Event().wait()
                    return None

                async def send(message, bodies=bodies, sent=sent):
                    sent.setdefault("status", message.get("status"))
                    bodies.append(message.get("body", b""))

                async with asyncio.timeout(60):
                    await on.appliance.app(scope_of("POST", path, header), receive, send)
                assert sent["status"] == 400
                assert b"did not arrive within 0.3 s" in b"".join(bodies)

    asyncio.run(story())


MANGLED_HOSTS = (
    *("127.0.0.1:port", "127.0.0.1: Bearer x", "a:99999", "[::1", "[x]:1", "a b", "a/b", "u@h"),
    *(":", ":::", "%", "*"),
)


@pytest.mark.parametrize("host", MANGLED_HOSTS)
def test_a_mangled_host_is_no_fault_of_the_servers_on_any_path(server, key, host):
    for method, path in (("GET", "/no/such"), ("POST", "/v2/rerank"), ("GET", "/admin/v1/keys")):
        head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 2\r\n".encode()
        received = exchange(server, head + key + b"\r\nconnection: close\r\n\r\n{}")
        assert 400 <= int(received.split(b" ", 2)[1]) < 500, received[:200]
