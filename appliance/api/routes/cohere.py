"""Cohere: its embed routes; its rerank routes are those of `rerank.py`."""

from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.shapes import cohere


@post(["/v1/embed", "/v1/v1/embed"])
async def create_embed_1(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Embed texts, answered as the first version of Cohere's API does."""
    async with services.paid.admitted(request) as paid:
        return await paid.answer(
            cohere.embed_task(paid.body, services.limits, request_id=paid.request_id, version=1)
        )


@post(["/v2/embed", "/v1/v2/embed"])
async def create_embed_2(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Embed texts, answered by kinds of numbers."""
    async with services.paid.admitted(request) as paid:
        return await paid.answer(
            cohere.embed_task(paid.body, services.limits, request_id=paid.request_id, version=2)
        )
