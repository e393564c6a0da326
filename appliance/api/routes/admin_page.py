"""OperatorApi page: `/admin`: what the operator's API does, for whom a browser is nearer."""

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.api.page import answer_page, require_wanted
from appliance.api.request import AnyRequest
from appliance.api.services import Services


@get("/", sync_to_thread=False)
def show_admin(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show a page that holds nothing until the operator's token is given to it."""
    require_wanted(request)
    return answer_page(request, services.authenticator.clients, "admin.html")
