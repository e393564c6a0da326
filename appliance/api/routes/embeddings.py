"""Embeddings: `POST /v1/embeddings` and Azure's path for it."""

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.api.request import AnyRequest
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
        return await paid.answer(openai.embed_task(paid.body, services.limits))


@post([f"{AZURE}/{{name:str}}/embeddings", f"{AZURE}/{{owner:str}}/{{name:str}}/embeddings"])
async def create_azure_embeddings(
    request: AnyRequest,
    services: NamedDependency[Services],
    name: FromPath[str],
    owner: FromPath[str] = "",
) -> Response[bytes]:
    """Embed texts with the model that the path names."""
    model = f"{owner}/{name}" if owner else name
    async with services.paid.admitted(request) as paid:
        return await paid.answer(openai.embed_task(paid.body, services.limits, model=model))
