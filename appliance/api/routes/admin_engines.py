"""OperatorApi engines: `/admin/v1/engines`: models in memory: list, load, unload and pin."""

from litestar import Response, Router, get, post
from litestar.di import NamedDependency

from appliance.api.audit import order_of
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.wire.engines import PinOrder
from appliance.wire.models import ModelOrder


@get("/")
async def list_engines(services: NamedDependency[Services]) -> Response[bytes]:
    """List models in memory, and devices."""
    return answer(await services.admin.engines.all())


@post("/load", status_code=200)
async def load_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Load a model."""
    order = await order_of(request, services.limits, ModelOrder)
    return answer(await services.admin.engines.load(order))


@post("/unload", status_code=200)
async def unload_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Free a model."""
    order = await order_of(request, services.limits, ModelOrder)
    return answer(await services.admin.engines.unload(order))


@post("/pin", status_code=200)
async def pin_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Keep a model in memory, or no longer."""
    order = await order_of(request, services.limits, PinOrder)
    return answer(await services.admin.engines.pin(order))


engines_router = Router(
    "/engines", route_handlers=[list_engines, load_model, unload_model, pin_model]
)
