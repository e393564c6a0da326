"""Auth: from a credential to a live key with the scope that a route needs.

Owns this check for all routes. Which header holds the credential is decided in `request`.
"""

from typing import Any

from litestar.connection import ASGIConnection

from appliance.accounts.failed_auth import FailedAuthLimiter
from appliance.accounts.key import Key, Scope
from appliance.accounts.keyring import Keyring
from appliance.accounts.refused_access import RefusedAccess
from appliance.api.clients import Clients
from appliance.api.request import note_known
from appliance.core.clock import Clock
from appliance.core.errors import InsufficientScope, InvalidKey, MissingKey


class Authenticator:
    """Checks credentials, and counts invalid ones by address."""

    def __init__(
        self,
        keyring: Keyring,
        failed_auth: FailedAuthLimiter,
        clock: Clock,
        clients: Clients,
        refused: RefusedAccess,
    ) -> None:
        self._keyring = keyring
        self.clients = clients
        """Where connections come from."""
        self._failed_auth = failed_auth
        self._clock = clock
        self.refused = refused
        """Counts who had no good credential."""

    def require(
        self, connection: ASGIConnection[Any, Any, Any, Any], text: str | None, *scopes: Scope
    ) -> Key:
        """Return the live key with this plaintext, which has at least one of the scopes.

        Raises:
            MissingKey: there is no text.
            InvalidKey: mistyped, unknown, revoked or expired.
            TooManyInvalidKeys: the same, after too many of them from this address.
            InsufficientScope: it has none of the scopes.
        """
        try:
            key = self._keyring.authenticate(text, self._clock.wall_us())
        except (MissingKey, InvalidKey) as error:
            address = self.clients.address(connection)
            self.refused.count(address, error.code)
            if isinstance(error, InvalidKey):
                self._failed_auth.count(address)
            raise
        note_known(connection)
        if not any(scope in key.scopes for scope in scopes):
            self.refused.count(self.clients.address(connection), InsufficientScope.code)
            raise InsufficientScope(scopes[0])
        return key
