"""OperatorApi keys: `/admin/v1/keys`: what an operator does with keys, from mint to forget."""

from typing import TypeVar

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.api.audit import note_target, order_of
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.wire.keys import ExpireOrder, LimitOrder, MintOrder, RotateOrder, TopUpOrder

T = TypeVar("T", MintOrder, TopUpOrder)


@get("/")
async def list_keys(services: NamedDependency[Services]) -> Response[bytes]:
    """List every key."""
    return answer(await services.admin.keys.all())


@post("/")
async def mint_key(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Mint a key; its plaintext is in this answer and nowhere else."""
    order = _named(request, await order_of(request, services.limits, MintOrder))
    minted = await services.admin.keys.mint(order)
    note_target(request, minted.id)
    return answer(minted, 201)


@get("/{key_id:str}")
async def show_key(key_id: FromPath[str], services: NamedDependency[Services]) -> Response[bytes]:
    """Show one key."""
    return answer(await services.admin.keys.show(key_id))


@post("/{key_id:str}/topup")
async def top_up_key(
    key_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Add credits."""
    order = _named(request, await order_of(request, services.limits, TopUpOrder))
    return answer(await services.admin.keys.top_up(key_id, order))


@post("/{key_id:str}/revoke")
async def revoke_key(key_id: FromPath[str], services: NamedDependency[Services]) -> Response[bytes]:
    """Refuse the key from now on."""
    return answer(await services.admin.keys.revoke(key_id))


@post("/{key_id:str}/rotate")
async def rotate_key(
    key_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Give the key a new credential; its plaintext is in this answer and nowhere else."""
    order = await order_of(request, services.limits, RotateOrder, default=b"{}")
    return answer(await services.admin.keys.rotate(key_id, order), 201)


@post("/{key_id:str}/expire")
async def expire_key(
    key_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Change when the key expires."""
    order = await order_of(request, services.limits, ExpireOrder)
    return answer(await services.admin.keys.expire(key_id, order))


@post("/{key_id:str}/limits")
async def limit_key(
    key_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Change what the key may do."""
    order = await order_of(request, services.limits, LimitOrder)
    return answer(await services.admin.keys.limit(key_id, order))


@delete("/{key_id:str}", status_code=200)
async def forget_key(key_id: FromPath[str], services: NamedDependency[Services]) -> Response[bytes]:
    """Revoke the key and remove its name and credentials; its transfers stay."""
    return answer(await services.admin.keys.forget(key_id))


def _named(request: AnyRequest, order: T) -> T:
    """Return an order with the Idempotency-Key of its request, where it has none of its own."""
    sent = request.headers.get("idempotency-key")
    if sent is None or order.idempotency_key is not None:
        return order
    return msgspec.structs.replace(order, idempotency_key=sent)


keys_router = Router(
    "/keys",
    route_handlers=[
        list_keys,
        mint_key,
        show_key,
        top_up_key,
        revoke_key,
        rotate_key,
        expire_key,
        limit_key,
        forget_key,
    ],
)
