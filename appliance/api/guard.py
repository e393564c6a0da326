"""Guard: who may use the operator's API: this machine, with the admin token.

Owns the answer to "is this the operator?". Deliberately knows no routes.
"""

import hmac
import ipaddress
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from appliance.core.errors import InvalidKey, MissingKey, UnknownPath


class OperatorGuard:
    """Lets the operator in, and nobody else."""

    def __init__(self, token: str, *, own_address: str, allow_remote: bool) -> None:
        self._token = token.encode()
        self._own_address = own_address
        """What the server is bound to: who comes from there is on this machine."""
        self._allow_remote = allow_remote

    def __call__(
        self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        """Refuse the connection unless it is the operator's.

        Raises:
            UnknownPath: from another machine; such a client is not told that there is anything.
            MissingKey: without a token.
            InvalidKey: with another token.
        """
        del handler  # every one of these routes is guarded alike
        if not self._is_local(connection) and not self._allow_remote:
            raise UnknownPath(path=connection.url.path[:200], valid=("/v1/models",))
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise MissingKey
        if not hmac.compare_digest(token.strip().encode(), self._token):
            raise InvalidKey

    def unless_local(
        self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        """Let this machine in without a token, and others as the operator.

        Raises:
            UnknownPath, MissingKey, InvalidKey: as for the operator.
        """
        if not self._is_local(connection):
            self(connection, handler)

    def _is_local(self, connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
        client = connection.client
        host = client.host if client else ""
        return is_loopback(host) or host == self._own_address


def is_loopback(host: str) -> bool:
    """Say whether an address is this machine's own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
