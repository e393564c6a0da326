"""Rerank: `POST /v1/rerank`, the union of Cohere's, Jina's, Voyage's, TEI's and vLLM's requests.

One answer serves all of their clients but TEI's: `results` as Cohere and Jina have it, `data` as
Voyage has it, and `meta` for those that read what Cohere bills.
"""

from typing import Annotated, Any

import msgspec

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.core.units import ceil_div
from appliance.tasks.rerank import Ranked, RerankTask
from appliance.tasks.task import usage_of
from appliance.wire.json import decode_leniently, decode_small, is_given
from appliance.wire.questions import Count, ModelName, RerankRequest, Word, cut_of, one_of
from appliance.wire.texts import require_text, rerank_documents

COHERE_SEARCH_UNIT = 100
"""Documents in one of Cohere's billed search units."""

Fields: Any = Annotated[list[str], msgspec.Meta(max_length=32)]
Some = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class RerankBody(msgspec.Struct):
    """The body as sent."""

    query: str
    model: ModelName | None = None
    documents: msgspec.Raw = msgspec.Raw()
    texts: msgspec.Raw = msgspec.Raw()
    top_n: Some | None = None
    top_k: Some | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    raw_scores: bool | None = None
    truncate: bool | Word | None = None
    truncation: bool | None = None
    truncation_direction: Word | None = None
    max_tokens_per_doc: Count | None = None
    max_doc_length: Count | None = None
    instruction: str | None = None
    rank_fields: msgspec.Raw = msgspec.Raw()

    @property
    def is_tei(self) -> bool:
        """Whether the body is as TEI's clients write it, who want a bare list."""
        return self.model is None and not is_given(self.documents) and is_given(self.texts)


def rerank_task(
    body: bytes, limits: Limits, *, request_id: str, model: str | None = None, is_tei: bool = False
) -> RerankTask:
    """Return what a body asks; `model` is one that the path names, which comes first.

    With `is_tei` the answer is TEI's, and so it is where the body can only be from a client of TEI.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode_leniently(body, RerankBody)
    question = _question(sent, limits, model)
    if is_tei or sent.is_tei:
        return RerankTask(question, write=tei_ranks, shape=f"tei {model}" if model else "tei")

    def write(found: Ranked) -> bytes:
        return results(found, request_id)

    return RerankTask(question, write=write)


def _question(sent: RerankBody, limits: Limits, model: str | None) -> RerankRequest:
    require_text(sent.query, limits, param="query")
    if sent.instruction:
        require_text(sent.instruction, limits, param="instruction")
    param, raw = (
        ("documents", sent.documents) if is_given(sent.documents) else ("texts", sent.texts)
    )
    if not is_given(raw):
        raise InvalidRequest("documents is missing", param="documents")
    if is_given(sent.documents) and is_given(sent.texts):
        raise InvalidRequest("documents and texts are the same; send one", param="texts")
    fields = None
    if is_given(sent.rank_fields):
        fields = decode_small(sent.rank_fields, Fields, param="rank_fields")
    documents = rerank_documents(raw, limits, param=param, fields=fields)
    top_n = one_of(sent.top_n, sent.top_k, names=("top_n", "top_k"))
    return RerankRequest(
        model=model or sent.model,
        query=sent.query,
        documents=documents,
        param=param,
        top_n=top_n or None,  # 0 means all, as in vLLM
        return_documents=bool(sent.return_documents or sent.return_text),
        raw_scores=bool(sent.raw_scores),
        truncate=_truncate(sent),
        document_tokens_max=one_of(
            sent.max_tokens_per_doc,
            sent.max_doc_length,
            names=("max_tokens_per_doc", "max_doc_length"),
        ),
        instruction=sent.instruction or None,
    )


def _truncate(sent: RerankBody) -> bool:
    cut = cut_of(sent.truncate, truncation=sent.truncation, direction=sent.truncation_direction)
    if cut == "start":
        field = "truncate" if sent.truncation_direction is None else "truncation_direction"
        raise InvalidRequest("documents are cut at their end alone", param=field)
    return cut == "end"


def results(found: Ranked, request_id: str) -> bytes:
    """Return the answer that all but TEI's clients read."""
    sent = found.sent
    ranked: list[dict[str, Any]] = []
    data: list[dict[str, Any]] = []
    for index, score in found.order:
        each: dict[str, Any] = {"index": index, "relevance_score": score}
        ranked.append(each)
        if sent.return_documents:
            text = sent.documents[index]
            data.append({**each, "document": text})
            each["document"] = {"text": text}
    return msgspec.json.encode(
        {
            "id": request_id,
            "object": "list",
            "model": found.spec.id,
            "results": ranked,
            "data": data or ranked,
            "usage": _usage(found),
            "meta": {
                "api_version": {"version": "2"},
                "tokens": {"input_tokens": found.plan.tokens, "output_tokens": 0},
                "billed_units": {"search_units": ceil_div(len(sent.documents), COHERE_SEARCH_UNIT)},
            },
        }
    )


def _usage(found: Ranked) -> dict[str, int]:
    used = usage_of(found.plan)
    if found.spec.entry.price.tokens_per_document is not None:
        used["documents"] = found.units
    return used


def tei_ranks(found: Ranked) -> bytes:
    """Return TEI's bare list."""
    sent = found.sent
    ranks: list[dict[str, Any]] = [{"index": i, "score": score} for i, score in found.order]
    if sent.return_documents:
        for rank in ranks:
            rank["text"] = sent.documents[rank["index"]]
    return msgspec.json.encode(ranks)
