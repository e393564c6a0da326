"""Ollama: its routes for embeddings, and those by which its clients look what is there."""

from litestar import Response, get, post
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.version import program_version
from appliance.shapes import ollama


@post("/api/embed")
async def create_embed(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Embed texts, answered as Ollama does."""
    async with services.paid.admitted(request) as paid:
        task = ollama.embed_task(
            paid.body,
            services.limits,
            elapsed_ns=lambda: services.clock.monotonic_ns() - paid.began_ns,
        )
        return await paid.answer(task)


@post("/api/embeddings")
async def create_embedding(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Embed one text, answered as Ollama's older route does."""
    async with services.paid.admitted(request) as paid:
        return await paid.answer(ollama.older_task(paid.body, services.limits))


@get("/api/tags")
async def list_tags(services: NamedDependency[Services]) -> Response[bytes]:
    """List the models on this machine."""
    listed = await services.admin.models.all()
    return answer(ollama.tags(listed.data))


@get("/api/version", sync_to_thread=False)
def show_version() -> Response[bytes]:
    """Say which version of this program answers."""
    return answer({"version": program_version()})
