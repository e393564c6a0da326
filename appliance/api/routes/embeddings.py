"""Embeddings: `POST /v1/embeddings`, OpenAI's request."""

from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.tasks.embed import EmbedTask
from appliance.wire.bodies import embeddings_request


@post(["/v1/embeddings", "/embeddings"])
async def create_embeddings(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Embed texts; billed by the token."""
    async with services.paid.admitted(request) as paid:
        sent = embeddings_request(paid.body, services.limits)
        return await paid.answer(EmbedTask(await services.token_inputs.resolved(sent, paid.key)))
