"""Rerank: `POST /v1/rerank`, the union of the Cohere, Jina, Voyage and TEI requests."""

from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.tasks.rerank import RerankTask
from appliance.wire.bodies import rerank_request

COHERE_PATHS = ("/v2/rerank", "/v1/v2/rerank")
"""Cohere's own client, with its base URL as documented and as often typed."""


@post(["/v1/rerank", "/rerank", "/v1/reranking", "/reranking", *COHERE_PATHS])
async def create_ranking(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Score documents against a query; billed by the document."""
    is_cohere = request.scope["path"].rstrip("/") in COHERE_PATHS
    async with services.paid.admitted(request) as paid:
        sent = rerank_request(paid.body, services.limits)
        return await paid.answer(RerankTask(sent, paid.request_id, is_cohere=is_cohere))
