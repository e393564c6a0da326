"""From `host` to one address, or to a refusal that says what is wrong with it."""

import socket

import pytest

from appliance import listen_address
from appliance.core.errors import InvalidSettings
from appliance.listen_address import resolved


@pytest.fixture
def names(monkeypatch):
    """A resolver that knows some names; literal addresses are the real one's."""
    known, real = {}, socket.getaddrinfo

    def look_up(name, *arguments, **options):
        if name in known:
            return [(0, 0, 0, "", (address, 0)) for address in known[name] for _ in "ab"]
        if any(letter in name for letter in "ghijklmnopqrstuvwxyz"):
            raise socket.gaierror(-2, "Name or service not known")
        return real(name, *arguments, **options)

    monkeypatch.setattr(listen_address.socket, "getaddrinfo", look_up)
    return known


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        (" 127.0.0.1 ", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::", "::"),
    ],
)
def test_an_address_is_itself_in_its_usual_form(names, host, address):
    assert resolved(host) == address


def test_localhost_is_ipv4s_loopback_where_there_is_one(names):
    names["localhost"] = ["::1", "127.0.0.1"]
    assert resolved("localhost") == "127.0.0.1"
    names["localhost"] = ["::1"]
    assert resolved("localhost") == "::1"


def test_a_name_of_one_address_is_that_address_and_one_of_several_is_refused(names):
    names["here"] = ["192.0.2.7"]
    assert resolved("here") == "192.0.2.7"
    names["here"] = ["192.0.2.7", "2001:db8::7"]
    with pytest.raises(
        InvalidSettings, match=r"host: here has several .* 192\.0\.2\.7, 2001:db8::7"
    ):
        resolved("here")


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("[]", "is empty"),
        ("nowhere.invalid", "neither an address nor a name"),
        ("lo", "is a network interface"),
        ("a" * 70 + ".invalid", "neither an address nor a name"),
        ("127.0.0.1:80", "neither"),
        ("a\x00b", "neither"),
        ("http://127.0.0.1", "neither"),
        ("224.0.0.1", "no address of one machine"),
        ("255.255.255.255", "no address of one machine"),
    ],
)
def test_what_cannot_be_bound_is_refused_by_the_settings_name(names, host, reason):
    with pytest.raises(InvalidSettings, match=reason) as refusal:
        resolved(host)
    assert refusal.value.message.startswith("settings: host: ")


def test_an_address_with_a_zone_is_refused(names):
    names["v"] = ["fe80::1%lo"]
    with pytest.raises(InvalidSettings, match="zone"):
        resolved("v")
