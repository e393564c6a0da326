"""Embeddings: `POST /v1/embeddings` and Azure's path for it."""

from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.routes.model_path import NAMES, path_model
from appliance.api.services import Services
from appliance.shapes import openai

AZURE = "/openai/deployments"
"""Azure's clients name the model in the path."""


@post(["/v1/embeddings", "/embeddings", "/openai/v1/embeddings"])
async def create_embeddings(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Embed texts; billed by the token."""
    async with services.paid.admitted(request) as paid:
        task = openai.embed_task(paid.body, services.limits)
        return await paid.answer(await services.token_inputs.resolved(task, paid.key, paid.meant))


@post([f"{AZURE}/{name}/embeddings" for name in NAMES])
async def create_azure_embeddings(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Embed texts with the model that the path names."""
    async with services.paid.admitted(request) as paid:
        task = openai.embed_task(paid.body, services.limits, model=path_model(request))
        return await paid.answer(await services.token_inputs.resolved(task, paid.key, paid.meant))
