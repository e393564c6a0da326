"""Guard: access to the operator's API, for this machine with the admin token or an admin key.

Owns the decision whether a connection is the operator's.
"""

import hmac
from typing import Any

from litestar.connection import ASGIConnection

from appliance.api.audit import note_operator
from appliance.api.auth import Authenticator
from appliance.api.request import credential_of, note_known
from appliance.core.errors import UnknownPath


class OperatorGuard:
    """Refuses every connection that is not the operator's."""

    def __init__(self, token: str, authenticator: Authenticator, *, allow_remote: bool) -> None:
        self._token = token.encode()
        self._authenticator = authenticator
        self._clients = authenticator.clients
        self._allow_remote = allow_remote

    def require(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Refuse the connection unless it is the operator's.

        Raises:
            UnknownPath: from another machine, which does not learn that the path exists.
            MissingKey: without a token.
            InvalidKey, TooManyInvalidKeys: with another token.
            InsufficientScope: with a key without the scope `admin`.
        """
        self.require_place(connection)
        address = self._clients.address(connection)
        text = credential_of(connection)
        if text is not None and hmac.compare_digest(text.encode(), self._token):
            note_known(connection)
            note_operator(connection, "admin token", address)
        else:
            key = self._authenticator.require(connection, text, "admin")
            note_operator(connection, f"key {key.id}", address)

    def require_place(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Refuse connections from where the operator never is.

        Raises:
            UnknownPath: from another machine, which does not learn that the path exists.
        """
        if not self._clients.is_local(connection) and not self._allow_remote:
            self._authenticator.refused.count(self._clients.address(connection), UnknownPath.code)
            raise UnknownPath(path=connection.scope["path"][:200], valid=("/v1/models",))

    def require_unless_local(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Accept this machine without a token, and other machines as the operator.

        Raises:
            ApplianceError: as for the operator.
        """
        if not self._clients.is_local(connection):
            self.require(connection)
