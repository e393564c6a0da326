"""Clients: where a request comes from.

A proxy of this machine sends on what others asked, so a request that says it was forwarded is never
taken for one of this machine. What such headers say counts only from a proxy that the settings
name; anybody else could write them.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

from litestar.connection import ASGIConnection

from appliance.core.address import is_address, is_loopback

AnyConnection = ASGIConnection[Any, Any, Any, Any]
FORWARDING = (
    *("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
    *("x-forwarded-server", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"),
)
"""Headers with which a proxy says that it passes a request on."""
HOPS_MAX = 32


class Clients:
    """Tells the clients of one server apart."""

    def __init__(self, trusted_proxies: Sequence[str], *, own_address: str) -> None:
        """Prepare.

        `trusted_proxies` are addresses and networks; `own_address` is what the server is bound to:
        a client with it is on this machine.

        Raises:
            ValueError: one of them is neither.
        """
        self._trusted = [ipaddress.ip_network(each, strict=False) for each in trusted_proxies]
        self._own_address = own_address

    def address(self, connection: AnyConnection) -> str:
        """Return the client's IP address; empty where the transport has none.

        Of a trusted proxy it is the last one in `X-Forwarded-For` that is no trusted proxy.
        """
        peer = peer_of(connection)
        if not self._is_trusted(peer):
            return peer
        listed = ",".join(connection.headers.getall("x-forwarded-for", []))
        for hop in reversed(listed.split(",")[-HOPS_MAX:]):
            name = hop.strip()
            if not name:
                continue
            if not self._is_trusted(name):
                return name if is_address(name) else peer
        return peer

    def is_local(self, connection: AnyConnection) -> bool:
        """Say whether the request comes from this machine."""
        peer = peer_of(connection)
        is_forwarded = any(name in connection.headers for name in FORWARDING)
        if is_forwarded and not self._is_trusted(peer):
            return False
        address = self.address(connection)
        if is_forwarded and address == peer:
            return False  # the proxy does not say for whom it asks
        return is_loopback(address) or address == self._own_address

    def scheme(self, connection: AnyConnection) -> str:
        """Return `http` or `https`, as the client sees it: of a trusted proxy what it says."""
        sent = connection.headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        if sent in ("http", "https") and self._is_trusted(peer_of(connection)):
            return sent
        return "https" if connection.scope["scheme"] == "https" else "http"

    def _is_trusted(self, text: str) -> bool:
        if not self._trusted:
            return False
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._trusted)


def peer_of(connection: AnyConnection) -> str:
    """Return the address at the other end of the connection."""
    return connection.client.host if connection.client else ""
