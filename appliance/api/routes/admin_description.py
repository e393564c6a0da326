"""OperatorApi description: `/admin/v1/openapi.json`."""

from litestar import Response, get

from appliance.admin.description import document
from appliance.core.version import program_version


@get("/openapi.json", sync_to_thread=False)
def show_description() -> Response[bytes]:
    """Describe the operator's API."""
    return Response(document(program_version()), status_code=200, media_type="application/json")
