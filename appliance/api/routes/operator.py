"""Operator: everything behind the operator's guard: `/admin/v1` and `/metrics`."""

from typing import Any

from litestar import Router
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from appliance.api.guard import OperatorGuard
from appliance.api.routes.admin_additions import additions_router
from appliance.api.routes.admin_books import backup_router
from appliance.api.routes.admin_description import show_description
from appliance.api.routes.admin_doctor import show_health
from appliance.api.routes.admin_downloads import downloads_router
from appliance.api.routes.admin_engines import engines_router
from appliance.api.routes.admin_events import show_events
from appliance.api.routes.admin_keys import keys_router
from appliance.api.routes.admin_log import show_log
from appliance.api.routes.admin_models import models_router
from appliance.api.routes.admin_page import show_admin
from appliance.api.routes.admin_stats import show_history, show_stats
from appliance.api.routes.admin_trials import watch_trial
from appliance.api.routes.admin_usage import show_usage
from appliance.api.routes.metrics import metrics


def operator_router(guard: OperatorGuard) -> Router:
    """Return the guarded routes."""

    # Functions, because Litestar copies its guards deeply: a copied keyring would not change
    # when a key is minted or revoked. Coroutines, because others are taken to a thread.
    async def operator(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        guard.require(connection)

    async def scraper(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        guard.require_unless_local(connection)

    async def place(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        guard.require_place(connection)

    admin = Router(
        "/admin/v1",
        guards=[operator],
        route_handlers=[
            keys_router,
            models_router,
            downloads_router,
            additions_router,
            engines_router,
            backup_router,
            watch_trial,
            show_usage,
            show_stats,
            show_history,
            show_log,
            show_health,
            show_events,
            show_description,
        ],
    )
    scraped = Router("/metrics", guards=[scraper], route_handlers=[metrics])
    page = Router("/admin", guards=[place], route_handlers=[show_admin])
    return Router("/", route_handlers=[admin, scraped, page])
