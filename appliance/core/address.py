"""Address: what a host's name or IP address says about where it is; nothing is looked up."""

import ipaddress
import socket

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the wildcards are named, not bound
"""Wildcard addresses, and the loopback address at which a server bound to one is reached."""


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine's loopback interface, however it is written.

    `localhost` and names below it always are (RFC 6761).
    """
    name = host.removeprefix("[").removesuffix("]").rstrip(".").casefold()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _is_short_loopback(name)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _is_short_loopback(name: str) -> bool:
    """Say whether a short form such as `127.1` means a loopback address."""
    if not name or not set(name) <= set("0123456789abcdefx."):
        return False
    try:
        packed = socket.inet_aton(name)
    except OSError:
        return False
    return ipaddress.IPv4Address(packed).is_loopback


def is_address(text: str) -> bool:
    """Say whether a text is an IP address, and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def connectable(host: str) -> str:
    """Return the address at which this machine reaches a server that is bound to `host`."""
    return ANY.get(host, host)


def in_url(host: str) -> str:
    """Return a host as it is written in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
