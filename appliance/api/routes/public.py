"""Public: what needs no key: models, the API's own description, and health."""

from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from appliance.api.openapi import document, packed
from appliance.api.page import accepts_gzip
from appliance.api.paid import JSON
from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.core.version import program_version
from appliance.shapes import cohere
from appliance.wire.json import encode
from appliance.wire.models import Health, ModelView

WARNING = "models.toml cannot be read: only the shipped models are served"
"""In `/health`, which anybody may read; the log and the doctor say where and why."""


def answer(value: Any, status: int = 200) -> Response[bytes]:
    """Return a value as JSON; decimals leave as exact numbers."""
    return Response(encode(value), status_code=status, media_type=JSON)


@get(["/v1/models", "/models", "/openai/models", "/openai/v1/models"])
async def list_models(
    services: NamedDependency[Services], endpoint: FromQuery[str | None] = None
) -> Response[bytes]:
    """List models with prices; `models` is the same list as Cohere's clients read it."""
    listed = await services.admin.models.all()
    as_coheres = cohere.models(listed.data, endpoint)
    data = [_of_model(view) for view in listed.data]
    return answer({**_fields(listed), "data": data, "models": as_coheres})


@get(["/v1/models/{model_id:path}", "/models/{model_id:path}"])
async def show_model(
    model_id: FromPath[str], services: NamedDependency[Services]
) -> Response[bytes]:
    """Show one model, by id or alias."""
    view = await services.admin.models.show(model_id.lstrip("/"))
    return answer(_of_model(view))


def _of_model(view: ModelView) -> dict[str, Any]:
    return {**cohere.model(view), **_fields(view)}


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    """Return a struct's fields as JSON shows them: those with their defaults left out."""
    fields: dict[str, Any] = msgspec.to_builtins(value, builtin_types=(Decimal,))
    return fields


@get("/v1/openapi.json", sync_to_thread=False)
def openapi(request: AnyRequest) -> Response[bytes]:
    """Describe this API, in gzip for who can read it."""
    headers, content = {"vary": "accept-encoding"}, document()
    if accepts_gzip(request):
        headers["content-encoding"] = "gzip"
        content = packed()
    return Response(content, status_code=200, media_type=JSON, headers=headers)


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
