"""TEI: the routes of Hugging Face's text-embeddings-inference, at the root and below a model.

A server of TEI has one model. Below `/tei/{model}` each model looks like one of its own; at the
root the default model of each task answers.
"""

from litestar import Response, get, post
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.routes.model_path import below, path_model
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.version import program_version
from appliance.shapes import cohere, rerank, tei


@post(["/", "/embed"])
async def create_embed(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Embed texts with the default model; Cohere's body is understood too."""
    async with services.paid.admitted(request) as paid:
        if tei.is_of_cohere(paid.body):
            return await paid.answer(
                cohere.embed_task(paid.body, services.limits, request_id=paid.request_id, version=2)
            )
        if tei.is_similarity(paid.body):
            return await paid.answer(tei.similarity_task(paid.body, services.limits))
        task = tei.embed_task(paid.body, services.limits)
        return await paid.answer(await services.token_inputs.resolved(task, paid.key, paid.meant))


@post(below("", "/embed"))
async def create_embed_below(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Embed texts with the model that the path names."""
    async with services.paid.admitted(request) as paid:
        model = path_model(request)
        if tei.is_similarity(paid.body):
            return await paid.answer(tei.similarity_task(paid.body, services.limits, model=model))
        task = tei.embed_task(paid.body, services.limits, model=model)
        return await paid.answer(await services.token_inputs.resolved(task, paid.key, paid.meant))


@post(["/similarity", *below("/similarity")])
async def create_similarity(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Say how near sentences are to one."""
    async with services.paid.admitted(request) as paid:
        model = path_model(request) or None
        return await paid.answer(tei.similarity_task(paid.body, services.limits, model=model))


@post(["/predict", *below("/predict")])
async def create_prediction(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Score pairs of texts with a reranker."""
    async with services.paid.admitted(request) as paid:
        model = path_model(request) or None
        return await paid.answer(tei.predict_task(paid.body, services.limits, model=model))


@post(below("/rerank"))
async def create_ranking_below(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Score texts against a query with the model that the path names."""
    async with services.paid.admitted(request) as paid:
        task = rerank.rerank_task(
            paid.body,
            services.limits,
            request_id=paid.request_id,
            model=path_model(request),
            is_tei=True,
        )
        return await paid.answer(task)


@get("/info")
async def show_info(services: NamedDependency[Services]) -> Response[bytes]:
    """Describe the default model for embeddings."""
    model = services.pipeline.models.default("embeddings")
    return await _info(services, model.id)


@get(below("/info"))
async def show_info_below(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Describe the model that the path names."""
    return await _info(services, path_model(request))


@get(below("/health"))
async def show_health_below(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Say that the model could answer; it is loaded when it is called."""
    view = await services.admin.models.show(path_model(request))
    return answer({}, 200 if view.available else 503)


async def _info(services: Services, model: str) -> Response[bytes]:
    view = await services.admin.models.show(model)
    described = tei.info(
        view,
        pooling=services.admin.models.catalog.find(view.id).entry.pooling,
        version=program_version(),
        inputs_max=services.limits.inputs_max,
    )
    return answer(described)
