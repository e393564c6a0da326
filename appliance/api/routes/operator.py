"""Operator: everything behind the operator's guard: `/admin/v1` and `/metrics`."""

from litestar import Router

from appliance.api.guard import OperatorGuard
from appliance.api.routes.admin_books import backup_router
from appliance.api.routes.admin_keys import keys_router
from appliance.api.routes.admin_models import models_router
from appliance.api.routes.admin_usage import show_usage
from appliance.api.routes.metrics import metrics


def operator_router(guard: OperatorGuard) -> Router:
    """Return the guarded routes."""
    admin = Router(
        "/admin/v1",
        guards=[guard],
        route_handlers=[keys_router, models_router, backup_router, show_usage],
    )
    scraped = Router("/metrics", guards=[guard.unless_local], route_handlers=[metrics])
    return Router("/", route_handlers=[admin, scraped])
