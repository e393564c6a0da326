"""Embeddings: `POST /v1/embeddings`, OpenAI's request."""

from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api import answers
from appliance.api.paid import Task
from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.call import Question
from appliance.catalog.spec import ModelSpec
from appliance.engine.loader import TextEncoder
from appliance.tasks.embedding import Plan, plan_singles, require_dimensions
from appliance.tasks.sequence import Tokens
from appliance.wire.bodies import EmbeddingsRequest, embeddings_request


@post(["/v1/embeddings", "/embeddings"])
async def create_embeddings(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Embed texts; billed by the token."""
    return await services.paid.serve(
        request, lambda body, _: _task(embeddings_request(body, services.limits))
    )


def _task(sent: EmbeddingsRequest) -> Task:
    def check(spec: ModelSpec) -> None:
        require_dimensions(sent.dimensions, spec.entry.dimensions, spec.entry.matryoshka)

    def plan(tokens: list[Tokens], encoder: TextEncoder, tokens_max: int) -> Plan:
        return plan_singles(
            tokens, encoder.frame, tokens_max=tokens_max, truncate=sent.truncate, param="input"
        )

    def question(spec: ModelSpec) -> Question:
        prompt = spec.prompt(sent.input_type) if sent.input_type else ""
        texts = [prompt + text for text in sent.texts] if prompt else sent.texts
        return Question(texts=texts, plan=plan, documents=None, truncate=sent.truncate)

    return Task(
        model=sent.model,
        task="embeddings",
        check=check,
        question=question,
        answer=lambda spec, plan, matrix: answers.embeddings(
            matrix, sent=sent, spec=spec, plan=plan
        ),
    )
