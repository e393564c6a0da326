"""OperatorApi doctor: `/admin/v1/doctor`: a look at the appliance's health."""

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.errors import InvalidRequest


@get("/doctor")
async def show_health(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show what was looked at, what was found, and what to do; `?hub=true` asks the hub, too.

    Raises:
        InvalidRequest: `hub` is neither true nor false.
    """
    asked = request.query_params.get("hub", "false")
    if asked not in ("true", "false"):
        raise InvalidRequest("hub is true or false", param="hub")
    return answer(await services.admin.doctor.report(asked))
