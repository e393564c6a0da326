"""OperatorApi models: `/admin/v1/models`: list, show, add, price, alias, verify, try and remove."""

from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.api.audit import order_of
from appliance.api.disconnect import watched
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.wire.models import AddModelOrder, AliasOrder, ModelOrder, PriceOrder, TryOrder


@get("/")
async def list_models(services: NamedDependency[Services]) -> Response[bytes]:
    """List models."""
    return answer(await services.admin.models.all_and_fault())


@get("/{model_id:path}")
async def show_model(
    model_id: FromPath[str], services: NamedDependency[Services]
) -> Response[bytes]:
    """Show one model."""
    return answer(await services.admin.show_model(model_id.lstrip("/")))


@post("/")
async def add_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Put a local model into the user's catalogue."""
    order = await order_of(request, services.limits, AddModelOrder)
    services.admin.models.require_noted(order)
    with watched(request):  # who hangs up cancels it
        return answer(await services.admin.models.add(order), 201)


@post("/price")
async def price_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Change what a model costs from now on."""
    order = await order_of(request, services.limits, PriceOrder)
    return answer(await services.admin.models.price(order))


@post("/alias", status_code=200)
async def alias_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Change which other names a model answers to."""
    order = await order_of(request, services.limits, AliasOrder)
    return answer(await services.admin.models.alias(order))


@post("/verify", status_code=200)
async def verify_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Hash a model's file and hold it against the catalogue."""
    order = await order_of(request, services.limits, ModelOrder)
    return answer(await services.admin.models.verify(order))


@post("/try", status_code=200)
async def try_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Try a model's file again in a process of its own."""
    order = await order_of(request, services.limits, TryOrder)
    with watched(request):  # who hangs up cancels it
        return answer(await services.admin.trials.run(order))


@post("/remove", status_code=200)
async def remove_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Remove a model's file."""
    order = await order_of(request, services.limits, ModelOrder)
    return answer(await services.admin.models.remove(order))


models_router = Router(
    "/models",
    route_handlers=[
        list_models,
        show_model,
        add_model,
        price_model,
        alias_model,
        verify_model,
        try_model,
        remove_model,
    ],
)
