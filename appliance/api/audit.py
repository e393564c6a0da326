"""Audit: what a request did as the operator, written down when its answer begins.

Owns which requests leave a line: those that change something, by whoever the guard accepted.
"""

from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.types import Message, Scope

from appliance.api.request import AnyRequest, read_body, request_id_of
from appliance.client import verbs
from appliance.core.limits import Limits
from appliance.store.audit_log import AuditLog, facts_of
from appliance.wire.json import decode

T = TypeVar("T", bound=msgspec.Struct)

READS = ("GET", "HEAD", "OPTIONS")
REFUSED = 400


def note_operator(connection: ASGIConnection[Any, Any, Any, Any], who: str, address: str) -> None:
    """Keep who the guard accepted, and from where."""
    connection.scope["state"]["operator"] = who, address


def note_target(request: AnyRequest, *ids: str) -> None:
    """Keep the ids that the request turned out to be about."""
    request.scope["state"]["audit_target"] = ids


async def order_of(
    request: AnyRequest, limits: Limits, kind: type[T], *, default: bytes = b""
) -> T:
    """Return the order in a body, and keep what of it may be written down.

    Raises:
        InvalidRequest: as for `decode`.
    """
    order = decode(await read_body(request, limits) or default, kind)
    request.scope["state"]["audit_order"] = facts_of(order)
    return order


def write(audit_log: AuditLog, message: Message, scope: Scope) -> None:
    """Write the line of a request whose answer begins, if it changes something."""
    method, state = str(scope.get("method", "")), scope.get("state", {})
    who, address = state.get("operator", ("", ""))
    if message["type"] != "http.response.start" or not who or method in READS:
        return
    status = message["status"]
    audit_log.note(
        who=who,
        what=verbs.name_of(method, scope.get("path_template", "")),
        outcome="done" if status < REFUSED else f"refused ({status})",
        origin=address,
        target=state.get("audit_target") or tuple(map(str, scope["path_params"].values())),
        order=state.get("audit_order"),
        request_id=request_id_of(Request(scope)),
    )
