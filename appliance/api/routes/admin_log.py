"""OperatorApi log: `/admin/v1/log`: the last lines that the server said."""

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services


@get("/log")
async def show_log(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show the lines that are kept; `?after=` is the cursor of the last answer."""
    return answer(services.log_buffer.after(request.query_params.get("after", "")))
