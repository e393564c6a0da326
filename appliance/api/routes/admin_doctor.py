"""OperatorApi doctor: `/admin/v1/doctor`: a look at the appliance's health."""

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.api.routes.public import answer
from appliance.api.services import Services


@get("/doctor")
async def show_health(services: NamedDependency[Services]) -> Response[bytes]:
    """Show what was looked at, what was found, and what to do."""
    return answer(await services.admin.doctor.report())
