"""OperatorApi usage: `/admin/v1/usage`: what was sold, by day, model or key; JSON or CSV."""

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.admin.usage import ALL, as_csv
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.errors import InvalidRequest
from appliance.wire.usage import UsageReport

CSV = "text/csv"
"""Litestar adds the charset to text of any kind."""
FORMATS = ("json", "csv")


@get("/usage")
async def show_usage(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show what was sold; `?format=csv` or `Accept: text/csv` gives a table to download."""
    asked = request.query_params
    report = await services.admin.usage.report(
        asked.get("by", "day"),
        asked.get("since", ALL),
        asked.get("key", ALL),
        asked.get("model", ALL),
    )
    return report_answer(request, report)


def report_answer(request: AnyRequest, report: UsageReport) -> Response[bytes]:
    """Return a report as JSON, or as a table if that was asked for.

    Raises:
        InvalidRequest: another format was.
    """
    asked = request.query_params.get("format")
    if asked not in (None, *FORMATS):
        raise InvalidRequest(f"format is one of {', '.join(FORMATS)}", param="format")
    if asked == "csv" or request.headers.get("accept", "").startswith("text/csv"):
        return Response(as_csv(report).encode(), status_code=200, media_type=CSV)
    return answer(report)
