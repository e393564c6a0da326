"""OperatorApi additions: `/admin/v1/additions`: list models that are being added, and cancel."""

from litestar import Response, Router, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.api.routes.public import answer
from appliance.api.services import Services


@get("/")
async def list_additions(services: NamedDependency[Services]) -> Response[bytes]:
    """List models that are being added."""
    return answer(await services.admin.models.additions.all())


@delete("/{addition_id:str}", status_code=200)
async def cancel_addition(
    addition_id: FromPath[str], services: NamedDependency[Services]
) -> Response[bytes]:
    """Cancel an addition."""
    return answer(await services.admin.models.additions.cancel(addition_id))


additions_router = Router("/additions", route_handlers=[list_additions, cancel_addition])
