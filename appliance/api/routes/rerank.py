"""Rerank: `POST /v1/rerank`, the union of the Cohere, Jina, Voyage and TEI requests."""

from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api import answers, exchange
from appliance.api.paid import Task
from appliance.api.services import Services
from appliance.call import Question
from appliance.catalog.spec import ModelSpec
from appliance.engine.loader import TextEncoder
from appliance.tasks.embedding import Plan
from appliance.tasks.rerank import plan_cosine, plan_pairs
from appliance.tasks.sequence import Tokens
from appliance.wire.bodies import RerankRequest, rerank_request

COHERE_PATHS = ("/v2/rerank", "/v1/v2/rerank")
"""Cohere's own client, with its base URL as documented and as often typed."""


@post(["/v1/rerank", "/rerank", "/v1/reranking", "/reranking", *COHERE_PATHS])
async def create_ranking(
    request: exchange.AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Score documents against a query; billed by the document."""
    is_cohere = request.url.path.rstrip("/") in COHERE_PATHS
    return await services.paid.serve(
        request,
        lambda body, request_id: _task(
            rerank_request(body, services.limits), request_id, is_cohere=is_cohere
        ),
    )


def _task(sent: RerankRequest, request_id: str, *, is_cohere: bool) -> Task:
    def question(spec: ModelSpec) -> Question:
        plan_texts = plan_cosine if spec.entry.scores == "cosine" else plan_pairs

        def plan(tokens: list[Tokens], encoder: TextEncoder, tokens_max: int) -> Plan:
            query, *documents = tokens
            if sent.document_tokens_max is not None:
                documents = [document[: sent.document_tokens_max] for document in documents]
            return plan_texts(
                query, documents, encoder.frame, tokens_max=tokens_max, truncate=sent.truncate
            )

        return Question(
            texts=[sent.query, *sent.documents],
            plan=plan,
            documents=len(sent.documents),
            truncate=sent.truncate,
        )

    return Task(
        model=sent.model,
        task="rerank",
        check=lambda _: None,
        question=question,
        answer=lambda spec, plan, matrix: answers.rerank(
            matrix, sent=sent, spec=spec, plan=plan, request_id=request_id, is_cohere=is_cohere
        ),
    )
