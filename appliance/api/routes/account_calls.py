"""Account calls: what a key's holder used, in sums and call by call, and a new credential."""

from litestar import Response, get, post
from litestar.di import NamedDependency

from appliance.accounts.key import Key
from appliance.admin.usage import ALL
from appliance.api.audit import note_operator, order_of
from appliance.api.request import AnyRequest, credential_of
from appliance.api.routes.admin_usage import report_answer
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.errors import InvalidRequest
from appliance.wire.keys import RotateOrder

LIMIT, LIMIT_MAX = 50, 500
SEQ_MAX = 2**63 - 1


def _holder(request: AnyRequest, services: Services) -> Key:
    return services.authenticator.require(request, credential_of(request), "usage", "infer")


@get("/account/usage")
async def show_own_usage(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Show what the key of the request used, by day, model or tier; also as a table."""
    key = _holder(request, services)
    asked = request.query_params
    report = await services.admin.usage.report(
        asked.get("by", "day"), asked.get("since", ALL), key.id, asked.get("model", ALL)
    )
    return _private(report_answer(request, report))


@get("/account/calls")
async def list_own_calls(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Show the calls that the key of the request was charged for."""
    key = _holder(request, services)
    limit = _number(request, "limit", LIMIT, 1, LIMIT_MAX)
    before = _number(request, "before", SEQ_MAX, 0, SEQ_MAX)
    return _private(answer(await services.admin.usage.calls(key.id, before, limit)))


@post("/account/rotate")
async def rotate_own_key(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Give the key of the request a new credential; its plaintext is in this answer alone."""
    key = _holder(request, services)
    order = await order_of(request, services.limits, RotateOrder, default=b"{}")
    note_operator(request, f"holder of {key.id}", services.authenticator.clients.address(request))
    return _private(answer(await services.admin.keys.rotate(key.id, order), 201))


def _number(request: AnyRequest, name: str, default: int, least: int, most: int) -> int:
    sent = request.query_params.get(name)
    if sent is None:
        return default
    is_number = sent.isascii() and sent.isdigit() and len(sent) <= len(str(most))
    if not is_number or not least <= int(sent) <= most:
        raise InvalidRequest(f"{name} is a number from {least} to {most}", param=name)
    return int(sent)


def _private(response: Response[bytes]) -> Response[bytes]:
    response.set_header("cache-control", "no-store")
    return response
