"""Rerank: documents in the order of their scores against a query, billed by the document.

A model reads a query and a document as one framed pair, as one text in a template, or it gives a
vector for each and their cosine is the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidRequest
from appliance.core.units import ceil_div
from appliance.engine import vectors
from appliance.engine.loader import TextEncoder
from appliance.engine.vectors import Matrix
from appliance.pricing.tariff import TaskKind
from appliance.sequences.prompt import query_text
from appliance.sequences.sequence import Tokens
from appliance.tasks.plan import Plan, plan_cosine, plan_pairs, plan_templated
from appliance.tasks.task import usage_of
from appliance.wire.bodies import RerankRequest

COHERE_SEARCH_UNIT = 100
"""Documents in one of Cohere's billed search units."""
RESULT_BYTES = 80
"""Of an index and a score, about."""
REPEATED_CHARS_MAX = 16_000_000
"""Of a query, counted once for each document, where a model reads both as one text."""


@dataclass(frozen=True, slots=True)
class RerankTask:
    """A request to rank documents."""

    sent: RerankRequest
    request_id: str
    """Stands in the answer."""
    is_cohere: bool
    """True: the answer has what Cohere's clients read besides."""

    @property
    def kind(self) -> TaskKind:
        """What a model must do to be asked this."""
        return "rerank"

    @property
    def model(self) -> str:
        """The model's name as the client sent it."""
        return self.sent.model

    @property
    def param(self) -> str:
        """The field of the body that holds the texts."""
        return "documents"

    @property
    def truncate(self) -> bool:
        """False: a text that is too long is refused."""
        return self.sent.truncate

    def validate(self, spec: ModelSpec) -> None:
        """Refuse an instruction that the model cannot follow, and a query repeated too often.

        Raises:
            InvalidRequest: as said; `param` names the field.
        """
        sent = self.sent
        if spec.entry.template is None:
            if sent.instruction is not None:
                raise InvalidRequest(f"{spec.id} follows no instruction", param="instruction")
            return
        # The query stands in each pair, and each pair is tokenized as one text.
        repeated = (len(sent.query) + len(sent.instruction or "")) * len(sent.documents)
        if repeated > REPEATED_CHARS_MAX:
            raise InvalidRequest(
                f"the query has {len(sent.query)} characters for each of {len(sent.documents)} "
                f"documents; {REPEATED_CHARS_MAX:,} in all at most: send fewer documents in each "
                "call",
                param="documents",
            )

    def texts(self, spec: ModelSpec) -> list[str]:
        """Return the query's text and then one for each document."""
        sent = self.sent
        if spec.entry.template is not None:
            query = query_text(sent.query, sent.instruction)
            return [query, *(query + text for text in sent.documents)]
        is_cosine = spec.entry.scores == "cosine"
        query, document = (spec.prompt(kind) if is_cosine else "" for kind in ("query", "document"))
        return [query + sent.query, *(document + text for text in sent.documents)]

    def plan(
        self, spec: ModelSpec, tokens: Sequence[Tokens], encoder: TextEncoder, tokens_max: int
    ) -> Plan:
        """Return one sequence for each document, or the query's and one for each.

        Raises:
            InputTooLong, InvalidRequest: a text does not fit, or has no tokens.
        """
        query, *documents = tokens
        limit, truncate = self.sent.document_tokens_max, self.sent.truncate
        if spec.entry.template is not None:
            assert encoder.template is not None
            return plan_templated(
                query,
                documents,
                encoder.template,
                tokens_max=tokens_max,
                truncate=truncate,
                document_tokens_max=limit,
            )
        if limit is not None:
            documents = [document[:limit] for document in documents]
        plan_texts = plan_cosine if spec.entry.scores == "cosine" else plan_pairs
        return plan_texts(query, documents, encoder.frame, tokens_max=tokens_max, truncate=truncate)

    @property
    def units_at_least(self) -> int:
        """The documents that were sent."""
        return len(self.sent.documents)

    def units(self, spec: ModelSpec, plan: Plan) -> int:
        """Return the documents that were sent, or those that their tokens count for."""
        each, count = spec.entry.price.tokens_per_document, len(self.sent.documents)
        if each is None:
            return count
        # A query that is computed by itself comes first, and is no document.
        return sum(ceil_div(len(sequence), each) for sequence in plan.sequences[-count:])

    def _usage(self, spec: ModelSpec, plan: Plan) -> dict[str, int]:
        used = usage_of(plan)
        if spec.entry.price.tokens_per_document is not None:
            used["documents"] = self.units(spec, plan)
        return used

    def answer_bytes(self, spec: ModelSpec) -> int:
        """Return about what the scores take, with the documents if they were asked for."""
        del spec
        documents = self.sent.documents
        texts = sum(map(len, documents)) if self.sent.return_documents else 0
        return len(documents) * RESULT_BYTES + texts

    def render(self, spec: ModelSpec, plan: Plan, matrix: Matrix) -> bytes:
        """Return the answer: best first, ties in the order of the documents."""
        sent = self.sent
        results: list[dict[str, Any]] = []
        for index, score in ranking(scores(matrix, sent=sent, spec=spec), sent.top_n):
            result: dict[str, Any] = {"index": index, "relevance_score": score}
            if sent.return_documents:
                result["document"] = {"text": sent.documents[index]}
            results.append(result)
        answer: dict[str, Any] = {
            "id": self.request_id,
            "object": "list",
            "model": spec.id,
            "results": results,
            "usage": self._usage(spec, plan),
        }
        if self.is_cohere:
            units = ceil_div(len(sent.documents), COHERE_SEARCH_UNIT)
            answer["meta"] = {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": units},
            }
        return msgspec.json.encode(answer)


def scores(
    matrix: Matrix, *, sent: RerankRequest, spec: ModelSpec
) -> npt.NDArray[np.floating[Any]]:
    """Return one absolute score for each document, 0..1 unless raw ones were asked for."""
    if spec.entry.scores == "cosine":
        cosine = vectors.cosine_to_first(matrix)
        return cosine if sent.raw_scores else np.clip(cosine, 0, 1)
    head = matrix[:, 0]
    if sent.raw_scores or spec.entry.scores == "as-is":
        return head
    return vectors.sigmoid(head)


def ranking(scores: npt.NDArray[np.floating], top_n: int | None) -> list[tuple[int, float]]:
    """Return (index, score), best first, equal scores in the order of the documents.

    `top_n` above the number of documents means all of them.
    """
    order = np.argsort(-scores, kind="stable")
    if top_n is not None:
        order = order[:top_n]
    return [(int(index), float(scores[index])) for index in order]
