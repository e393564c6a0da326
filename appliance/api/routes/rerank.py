"""Rerank: `POST /v1/rerank`, the union of the Cohere, Jina, Voyage and TEI requests."""

from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api import answers
from appliance.api.paid import Task
from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.call import Question
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidRequest
from appliance.engine.loader import TextEncoder
from appliance.tasks.embedding import Plan
from appliance.tasks.prompt import judged_head
from appliance.tasks.rerank import plan_cosine, plan_judged, plan_pairs
from appliance.tasks.sequence import Tokens
from appliance.wire.bodies import RerankRequest, rerank_request

COHERE_PATHS = ("/v2/rerank", "/v1/v2/rerank")
"""Cohere's own client, with its base URL as documented and as often typed."""
REPEATED_CHARS_MAX = 16_000_000
"""Of a query, counted once for each document, where a model reads both as one text."""


@post(["/v1/rerank", "/rerank", "/v1/reranking", "/reranking", *COHERE_PATHS])
async def create_ranking(
    request: AnyRequest, services: NamedDependency[Services]
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
    return Task(
        model=sent.model,
        task="rerank",
        check=lambda spec: _check(sent, spec),
        question=lambda spec: _judged(sent) if spec.entry.template else _paired(sent, spec),
        answer=lambda spec, plan, matrix: answers.rerank(
            matrix, sent=sent, spec=spec, plan=plan, request_id=request_id, is_cohere=is_cohere
        ),
    )


def _check(sent: RerankRequest, spec: ModelSpec) -> None:
    if spec.entry.template is None:
        if sent.instruction is not None:
            raise InvalidRequest(f"{spec.id} follows no instruction", param="instruction")
        return
    # The query stands in each pair, and each pair is tokenized as one text.
    repeated = (len(sent.query) + len(sent.instruction or "")) * len(sent.documents)
    if repeated > REPEATED_CHARS_MAX:
        raise InvalidRequest(
            f"the query has {len(sent.query)} characters for each of {len(sent.documents)} "
            f"documents; {REPEATED_CHARS_MAX:,} in all at most: send fewer documents in each call",
            param="documents",
        )


def _paired(sent: RerankRequest, spec: ModelSpec) -> Question:
    """Ask for a score of each pair, or for vectors of its two sides."""
    is_cosine = spec.entry.scores == "cosine"
    plan_texts = plan_cosine if is_cosine else plan_pairs

    def plan(tokens: list[Tokens], encoder: TextEncoder, tokens_max: int) -> Plan:
        query, *documents = tokens
        if sent.document_tokens_max is not None:
            documents = [document[: sent.document_tokens_max] for document in documents]
        return plan_texts(
            query, documents, encoder.frame, tokens_max=tokens_max, truncate=sent.truncate
        )

    query, document = (spec.prompt(kind) if is_cosine else "" for kind in ("query", "document"))
    return Question(
        texts=[query + sent.query, *(document + text for text in sent.documents)],
        plan=plan,
        documents=len(sent.documents),
        truncate=sent.truncate,
    )


def _judged(sent: RerankRequest) -> Question:
    """Ask a model that reads query and document as one text, in a template."""

    def plan(tokens: list[Tokens], encoder: TextEncoder, tokens_max: int) -> Plan:
        assert encoder.template is not None
        head, *pairs = tokens
        return plan_judged(
            head,
            pairs,
            encoder.template,
            tokens_max=tokens_max,
            truncate=sent.truncate,
            document_tokens_max=sent.document_tokens_max,
        )

    head = judged_head(sent.query, sent.instruction)
    return Question(
        texts=[head, *(head + text for text in sent.documents)],
        plan=plan,
        documents=len(sent.documents),
        truncate=sent.truncate,
    )
