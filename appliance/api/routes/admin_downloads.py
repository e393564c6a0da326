"""OperatorApi downloads: `/admin/v1/downloads`: pull, list, show and cancel."""

from litestar import Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.api.audit import order_of
from appliance.api.disconnect import watched
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.wire.downloads import HubModelOrder
from appliance.wire.models import ModelOrder


@get("/")
async def list_downloads(services: NamedDependency[Services]) -> Response[bytes]:
    """List downloads."""
    return answer(await services.admin.downloads.all())


@post("/")
async def pull_model(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Begin to fetch a model."""
    order = await order_of(request, services.limits, ModelOrder)
    return answer(await services.admin.downloads.pull(order), 202)


@get("/{download_id:str}")
async def show_download(
    download_id: FromPath[str], services: NamedDependency[Services]
) -> Response[bytes]:
    """Show one download."""
    return answer(await services.admin.downloads.show(download_id))


@delete("/{download_id:str}", status_code=200)
async def cancel_download(
    download_id: FromPath[str], services: NamedDependency[Services]
) -> Response[bytes]:
    """Cancel a download."""
    return answer(await services.admin.downloads.cancel(download_id))


@post("/catalog")
async def add_from_hub(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Put a repository of the hub into the user's catalogue."""
    order = await order_of(request, services.limits, HubModelOrder)
    with watched(request):  # who hangs up cancels it
        return answer(await services.admin.downloads.add(order), 201)


downloads_router = Router(
    "/downloads",
    route_handlers=[list_downloads, pull_model, show_download, cancel_download, add_from_hub],
)
