"""Rerank: `POST /v1/rerank`, by every path that clients know it by."""

from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.shapes.rerank import rerank_task

PATHS = (
    "/v1/rerank",
    "/rerank",
    "/v2/rerank",
    "/v1/reranking",
    "/reranking",
    "/v1/v1/rerank",
    "/v1/v2/rerank",
)
"""Each peer's own, and Cohere's below a base URL that ends in `/v1`."""


@post([*PATHS])
async def create_ranking(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Score documents against a query; billed by the document."""
    async with services.paid.admitted(request) as paid:
        task = rerank_task(paid.body, services.limits, request_id=paid.request_id)
        return await paid.answer(task)
