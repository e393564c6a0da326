"""OperatorApi books: `/admin/v1/backup`: make a backup, list those that the server makes."""

from litestar import Response, Router, get, post
from litestar.di import NamedDependency

from appliance.api.audit import order_of
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.wire.books import BackupOrder


@get("/")
async def list_backups(services: NamedDependency[Services]) -> Response[bytes]:
    """List the backups that the server made by itself."""
    return answer(await services.admin.books.backups())


@post("/")
async def make_backup(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Write a backup."""
    order = await order_of(request, services.limits, BackupOrder)
    return answer(await services.admin.books.back_up(order), 201)


backup_router = Router("/backup", route_handlers=[list_backups, make_backup])
