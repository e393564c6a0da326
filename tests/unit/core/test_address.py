import pytest

from appliance.core.address import connectable, in_url, is_loopback


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.9.10",
        "127.1",
        "0x7f.1",
        "2130706433",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
        "localhost",
        "LocalHost",
        "localhost.",
        "db.localhost",
    ],
)
def test_loopback_is_known_however_it_is_written(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "10.1",
        "128.1",
        "::ffff:10.0.0.1",
        "localhost.example",
        "notlocalhost",
        "a",
        "x",
    ],
)
def test_what_is_not_loopback_is_not_taken_for_it(host):
    assert not is_loopback(host)


def test_a_wildcard_is_reached_at_loopback_and_ipv6_has_brackets_in_a_url():
    assert connectable("0.0.0.0") == "127.0.0.1"
    assert in_url(connectable("::")) == "[::1]"
    assert in_url(connectable("192.0.2.7")) == "192.0.2.7"
