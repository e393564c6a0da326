"""Edge: what is refused before any route, and how fast who has no key is answered.

Owns the order: whom the request is meant for, which page sends it, and how its path is spelled.
"""

import socket
from typing import Any

from litestar import Request
from litestar.types import Scope, Send

from appliance.api import error_responses
from appliance.api.clients import Clients
from appliance.api.connections import Connections
from appliance.api.cors import Cors
from appliance.api.hosts import Hosts
from appliance.api.pace import Pace
from appliance.api.request import AnyRequest, is_known, request_id_of
from appliance.core.errors import ApplianceError, UnknownPath

WITH_IDS = (
    "/v1/models/",
    "/models/",
    "/openai/deployments/",
    "/tei/",
    "/admin/v1/models/",
)
"""What follows is an id, in which a client may encode what it likes."""


class Edge:
    """Checks heads of requests for one server."""

    def __init__(
        self, hosts: Hosts, cors: Cors, clients: Clients, pace: Pace, connections: Connections
    ) -> None:
        self._hosts = hosts
        self.cors = cors
        self._clients = clients
        self._pace = pace
        self.connections = connections

    def check(self, request: AnyRequest) -> None:
        """Refuse a request that is not for us, not from a page of ours, or oddly spelled.

        Raises:
            UnknownHost, ForeignOrigin, UnknownPath: as said.
        """
        hosts = request.headers.getall("host", [])
        if len(hosts) == 1 and hosts[0]:
            self._hosts.require_known(hosts[0])
        # None, or several: the routes' own check of the head refuses that.
        if not self.cors.allows(request):
            self._hosts.require_own_page(
                hosts[0] if hosts else "", str(request.method), request.headers
            )
        _require_plain(request.scope["path"], request.scope["raw_path"])

    async def slow_down(self, request: AnyRequest) -> None:
        """Return when an answer may begin: at once where the request had a good credential."""
        if not is_known(request):
            await self._pace.wait(self._clients.address(request))


def _require_plain(path: str, raw: bytes) -> None:
    """Refuse every spelling of a path but one, so that whoever filters paths before us sees ours.

    Raises:
        UnknownPath: as said.
    """
    fixed = next((len(prefix) for prefix in WITH_IDS if raw.startswith(prefix.encode())), len(raw))
    if b"%" in raw[:fixed] or b"//" in raw[:fixed] or b"\\" in raw[:fixed]:
        raise UnknownPath(path=path[:200], valid=error_responses.VALID_PATHS)


def machine_name() -> str:
    """Return this machine's own name; empty: it has none."""
    return socket.gethostname()


async def answer_refusal(error: ApplianceError, scope: Scope, send: Send) -> None:
    """Answer a request that reaches no route."""
    request = Request[Any, Any, Any](scope)
    response = error_responses.respond(request, error)
    headers = {
        **response.headers,
        "content-type": "application/json",
        "content-length": str(len(response.content)),
        "x-request-id": request_id_of(request),
        "connection": "close",  # its body is not read
    }
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code or 400,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    body = b"" if scope.get("method") == "HEAD" else response.content
    await send({"type": "http.response.body", "body": body, "more_body": False})
