"""Operator: the admin API, `/admin/v1`: keys, credits and models; and `/metrics`.

Guarded by the admin token, and by loopback unless `admin.allow_remote` says otherwise.
"""

import hmac
import ipaddress
from typing import Any

from litestar import Response, Router, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from appliance.api import exchange
from appliance.api.routes.metrics import metrics
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.errors import InvalidKey, MissingKey, UnknownPath
from appliance.wire.admin import AddModelOrder, MintOrder, TopUpOrder
from appliance.wire.json import decode


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


@get("/keys")
async def list_keys(services: NamedDependency[Services]) -> Response[bytes]:
    """List every key."""
    return answer({"data": await services.admin.keys()})


@post("/keys")
async def mint_key(
    request: exchange.AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Mint a key; its plaintext is in this answer and nowhere else."""
    order = decode(await exchange.body(request, services.limits), MintOrder)
    return answer(await services.admin.mint(order), 201)


@get("/keys/{key_id:str}")
async def show_key(key_id: FromPath[str], services: NamedDependency[Services]) -> Response[bytes]:
    """Show one key."""
    return answer(await services.admin.key(key_id))


@post("/keys/{key_id:str}/topup")
async def top_up_key(
    key_id: FromPath[str], request: exchange.AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Add credits."""
    order = decode(await exchange.body(request, services.limits), TopUpOrder)
    return answer(await services.admin.top_up(key_id, order))


@post("/keys/{key_id:str}/revoke")
async def revoke_key(key_id: FromPath[str], services: NamedDependency[Services]) -> Response[bytes]:
    """Refuse the key from now on."""
    return answer(await services.admin.revoke(key_id))


@get("/models", sync_to_thread=False)
def list_models(services: NamedDependency[Services]) -> Response[bytes]:
    """List models."""
    return answer(services.admin.models())


@get("/models/{model_id:path}", sync_to_thread=False)
def show_model(model_id: FromPath[str], services: NamedDependency[Services]) -> Response[bytes]:
    """Show one model."""
    return answer(services.admin.model(model_id.lstrip("/")))


@post("/models")
async def add_model(
    request: exchange.AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Put a local model into the user's catalogue."""
    order = decode(await exchange.body(request, services.limits), AddModelOrder)
    return answer(await services.admin.add_model(order), 201)


def operator_router(guard: OperatorGuard) -> Router:
    """Return the guarded routes."""
    admin = Router(
        "/admin/v1",
        guards=[guard],
        route_handlers=[
            list_keys, mint_key, show_key, top_up_key, revoke_key, list_models, show_model,
            add_model,
        ],
    )  # fmt: skip
    scraped = Router("/metrics", guards=[guard.unless_local], route_handlers=[metrics])
    return Router("/", route_handlers=[admin, scraped])
