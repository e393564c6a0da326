"""Public: what needs no key: models, the API's own description, and health."""

from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.admin.operator_api import program_version
from appliance.api.openapi import document
from appliance.api.paid import JSON
from appliance.api.services import Services
from appliance.shapes import cohere
from appliance.wire.json import encode
from appliance.wire.models import Health

WARNING = "models.toml cannot be read: only the shipped models are served"
"""In `/health`, which anybody may read; the log and the doctor say where and why."""


def answer(value: Any, status: int = 200) -> Response[bytes]:
    """Return a value as JSON; decimals leave as exact numbers."""
    return Response(encode(value), status_code=status, media_type=JSON)


@get("/", sync_to_thread=False)
def say_hello() -> Response[str]:
    """Say that this server is there: clients of Ollama ask before they call."""
    return Response("gigarouter is running", status_code=200, media_type="text/plain")


@get(["/v1/models", "/models", "/openai/models", "/openai/v1/models"])
async def list_models(services: NamedDependency[Services]) -> Response[bytes]:
    """List models with prices; `models` is the same list as Cohere's clients read it."""
    listed = await services.admin.models.all()
    return answer({**msgspec.structs.asdict(listed), "models": cohere.models(listed.data)})


@get(["/v1/models/{model_id:path}", "/models/{model_id:path}"])
async def show_model(
    model_id: FromPath[str], services: NamedDependency[Services]
) -> Response[bytes]:
    """Show one model, by id or alias."""
    return answer(await services.admin.models.show(model_id.lstrip("/")))


@get("/v1/openapi.json", sync_to_thread=False)
def openapi() -> Response[bytes]:
    """Describe this API."""
    return Response(document(), status_code=200, media_type=JSON)


@get("/health")
async def health(services: NamedDependency[Services]) -> Response[bytes]:
    """Say that the server answers; 503 while it drains, so that a balancer looks elsewhere."""
    state = "draining" if services.pipeline.draining else "ok"
    return answer(
        Health(
            status=state,
            version=program_version(),
            models_loaded=services.admin.models.loaded(),
            starting=services.residency.is_preloading,
            warning=WARNING if services.admin.models.fault else None,
        ),
        503 if services.pipeline.draining else 200,
    )
