"""TEI: the routes of Hugging Face's text-embeddings-inference, at the root and below a model.

A server of TEI has one model. Below `/tei/{model}` each model looks like one of its own; at the
root the default model of each task answers.
"""

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.admin.operator_api import program_version
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.shapes import cohere, rerank, tei

BASES = ("/tei/{name:str}", "/tei/{owner:str}/{name:str}")


def below(*paths: str) -> list[str]:
    """Return these paths below each base."""
    return [base + path for base in BASES for path in paths]


@post(["/", "/embed"])
async def create_embed(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Embed texts with the default model; Cohere's body is understood too."""
    async with services.paid.admitted(request) as paid:
        if tei.is_of_cohere(paid.body):
            return await paid.answer(
                cohere.embed_task(paid.body, services.limits, request_id=paid.request_id, version=2)
            )
        return await paid.answer(tei.embed_task(paid.body, services.limits))


@post(below("", "/embed"))
async def create_embed_below(
    request: AnyRequest,
    services: NamedDependency[Services],
    name: FromPath[str],
    owner: FromPath[str] = "",
) -> Response[bytes]:
    """Embed texts with the model that the path names."""
    async with services.paid.admitted(request) as paid:
        return await paid.answer(
            tei.embed_task(paid.body, services.limits, model=_model(owner, name))
        )


@post(below("/rerank"))
async def create_ranking_below(
    request: AnyRequest,
    services: NamedDependency[Services],
    name: FromPath[str],
    owner: FromPath[str] = "",
) -> Response[bytes]:
    """Score texts against a query with the model that the path names."""
    async with services.paid.admitted(request) as paid:
        task = rerank.rerank_task(
            paid.body,
            services.limits,
            request_id=paid.request_id,
            model=_model(owner, name),
            is_tei=True,
        )
        return await paid.answer(task)


@get("/info")
async def show_info(services: NamedDependency[Services]) -> Response[bytes]:
    """Describe the default model for embeddings."""
    model = services.pipeline.default_model("embeddings")
    return await _info(services, model.id)


@get(below("/info"))
async def show_info_below(
    services: NamedDependency[Services], name: FromPath[str], owner: FromPath[str] = ""
) -> Response[bytes]:
    """Describe the model that the path names."""
    return await _info(services, _model(owner, name))


@get(below("/health"))
async def show_health_below(
    services: NamedDependency[Services], name: FromPath[str], owner: FromPath[str] = ""
) -> Response[bytes]:
    """Say that the model could answer; it is loaded when it is called."""
    view = await services.admin.models.show(_model(owner, name))
    return answer({}, 200 if view.available else 503)


async def _info(services: Services, model: str) -> Response[bytes]:
    view = await services.admin.models.show(model)
    described = tei.info(view, version=program_version(), inputs_max=services.limits.inputs_max)
    return answer(described)


def _model(owner: str, name: str) -> str:
    return f"{owner}/{name}" if owner else name
