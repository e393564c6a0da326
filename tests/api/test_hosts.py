"""Whom a request is meant for, which page sent it, and where it comes from."""

import asyncio

import pytest
from litestar import Request

from appliance.api.clients import FORWARDING, Clients
from appliance.api.hosts import Hosts
from appliance.core.errors import ForeignOrigin, UnknownHost
from tests.api.test_authorization import ask, routes
from tests.appliance import bench

LOOPBACK = Hosts(["models.example"], bound="127.0.0.1", machine="box")
NETWORK = Hosts([], bound="0.0.0.0", machine="Box.lan.example")

KNOWN = (
    "localhost",
    "LOCALHOST:8642",
    "127.0.0.1",
    "127.0.0.1:1",
    "[::1]",
    "[::1]:8642",
    "10.1.2.3",
    "models.example:80",
)
UNKNOWN = (
    *("evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "evil.test:8642", "localhost."),
    *("user@localhost", "localhost:port", "localhost:99999", "[::1", "[localhost]", "::1", "a b"),
    *("", ":", "127.0.0.1:8642:1", "http://localhost", "localhost/x", "127.1", "2130706433", "*"),
    *("box", "box.local", "models.example.evil.test", "xmodels.example", "127.0.0.1,evil.test"),
)


@pytest.mark.parametrize("host", KNOWN)
def test_addresses_and_names_of_ours_are_known_with_any_port(host):
    LOOPBACK.require_known(host)


@pytest.mark.parametrize("host", UNKNOWN)
def test_everything_else_is_another_server(host):
    with pytest.raises(UnknownHost):
        LOOPBACK.require_known(host)


def test_a_server_that_is_open_to_the_network_has_the_machines_name_too():
    for host in ("box.lan.example", "BOX.local:8642", "localhost", "192.168.0.7:8642"):
        NETWORK.require_known(host)
    for host in ("box", "lan.example", "other.local"):
        with pytest.raises(UnknownHost):
            NETWORK.require_known(host)


OURS = "127.0.0.1:8642"
PAGES = [
    ({}, "POST", True),
    ({"origin": "http://127.0.0.1:8642"}, "POST", True),
    ({"origin": "https://127.0.0.1:8642", "sec-fetch-site": "same-origin"}, "POST", True),
    ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, "GET", True),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "GET", True),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "POST", False),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "GET", False),
    ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, "GET", False),
    ({"origin": "null"}, "POST", False),
    ({"origin": ""}, "POST", False),
    ({"origin": "http://evil.test"}, "POST", False),
    ({"origin": "http://127.0.0.1:9000"}, "POST", False),
    ({"origin": "http://localhost:8642"}, "POST", False),
    ({"origin": "file://127.0.0.1:8642"}, "POST", False),
    ({"origin": "http://127.0.0.1:8642.evil.test"}, "POST", False),
]


@pytest.mark.parametrize(("headers", "method", "is_ours"), PAGES)
def test_a_page_may_call_the_server_that_it_came_from_and_no_other(headers, method, is_ours):
    if is_ours:
        LOOPBACK.require_own_page(OURS, method, headers)
    else:
        with pytest.raises(ForeignOrigin):
            LOOPBACK.require_own_page(OURS, method, headers)


FOREIGN = [
    ((("host", "evil.test:8642"),), 421, "unknown_host"),
    ((("origin", "https://evil.test"),), 403, "foreign_origin"),
    ((("origin", "null"),), 403, "foreign_origin"),
    ((("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")), 403, "foreign_origin"),
]


def test_no_route_answers_a_foreign_page_or_name_whatever_the_key(tmp_path):
    async def story():
        wrong = []
        async with bench(tmp_path / "data", preload=False) as on:
            token = on.directory.admin_token()
            key = (await on.mint()).key
            for method, path in [
                *sorted(routes(on.appliance.app)),
                ("GET", "/no/such"),
                ("POST", "/"),
            ]:
                for headers, status, code in FOREIGN:
                    for credential in (None, token, key):
                        sent = list(headers)
                        if credential:
                            sent.append(("authorization", f"Bearer {credential}"))
                        told = await ask(on.appliance.app, method, path, headers=sent)
                        if (told.status, told.code) != (status, code) and method != "HEAD":
                            wrong.append((method, path, headers, told))
        assert wrong == []

    asyncio.run(story())


def connection(peer, **headers):
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {
            "type": "http",
            "client": (peer, 1),
            "headers": named,
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "state": {},
        }
    )


NONE = Clients([], own_address="192.168.0.2")
PROXY = Clients(["127.0.0.1", "10.0.0.0/8"], own_address="127.0.0.1")
LOCAL = [
    (NONE, "127.0.0.1", {}, "127.0.0.1", True),
    (NONE, "192.168.0.2", {}, "192.168.0.2", True),
    (NONE, "192.168.0.3", {}, "192.168.0.3", False),
    # Whoever says that it was forwarded is not this machine, whatever else it says.
    (NONE, "127.0.0.1", {"x_forwarded_for": "8.8.8.8"}, "127.0.0.1", False),
    (NONE, "127.0.0.1", {"x_forwarded_for": "127.0.0.1"}, "127.0.0.1", False),
    (NONE, "127.0.0.1", {"forwarded": "for=127.0.0.1"}, "127.0.0.1", False),
    (NONE, "127.0.0.1", {"x_real_ip": ""}, "127.0.0.1", False),
    # A named proxy's word counts: the last hop that is not one of ours.
    (PROXY, "127.0.0.1", {}, "127.0.0.1", True),
    (PROXY, "127.0.0.1", {"x_forwarded_for": "8.8.8.8"}, "8.8.8.8", False),
    (PROXY, "127.0.0.1", {"x_forwarded_for": "127.0.0.1, 8.8.8.8, 10.1.1.1"}, "8.8.8.8", False),
    (PROXY, "127.0.0.1", {"x_forwarded_for": "10.1.1.1"}, "127.0.0.1", False),
    (PROXY, "127.0.0.1", {"x_forwarded_for": "nonsense"}, "127.0.0.1", False),
    (PROXY, "127.0.0.1", {"via": "1.1 proxy"}, "127.0.0.1", False),
    (PROXY, "192.168.0.9", {"x_forwarded_for": "127.0.0.1"}, "192.168.0.9", False),
]


@pytest.mark.parametrize(("clients", "peer", "headers", "address", "is_local"), LOCAL)
def test_where_a_request_comes_from_is_the_peers_word_or_a_named_proxys(
    clients, peer, headers, address, is_local
):
    asked = connection(peer, **headers)
    assert clients.address(asked) == address
    assert clients.is_local(asked) == is_local


def test_what_is_open_to_this_machine_is_closed_to_what_was_forwarded_to_it(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            token = ("authorization", f"Bearer {on.directory.admin_token()}")
            app = on.appliance.app
            assert (await ask(app, "GET", "/metrics")).status == 200
            assert (await ask(app, "GET", "/admin/v1/keys", headers=[token])).status == 200
            for name in FORWARDING:
                sent = (name, "for=127.0.0.1")
                assert (await ask(app, "GET", "/metrics", headers=[sent])).status in (401, 404), (
                    name
                )
                told = await ask(app, "GET", "/admin/v1/keys", headers=[sent, token])
                assert told.status == 404, name

    asyncio.run(story())
