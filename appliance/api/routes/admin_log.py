"""Admin log: `/admin/v1/log`: the last lines that the server said."""

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.api import exchange
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.errors import InvalidRequest

DIGITS_MAX = 18


@get("/log")
async def show_log(
    request: exchange.AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Show the lines that are kept; `?after=` is the number of the last one that is known."""
    asked = request.query_params.get("after", "0")
    if not (asked.isascii() and asked.isdigit() and len(asked) <= DIGITS_MAX):
        raise InvalidRequest("after is the number of a line", param="after")
    return answer(services.journal.after(int(asked)))
