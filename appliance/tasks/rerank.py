"""Rerank: documents in the order of their scores against a query, billed by the document.

A model reads a query and a document as one framed pair, as one text in a template, or it gives a
vector for each and their cosine is the score.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidRequest
from appliance.core.units import ceil_div
from appliance.engine import vectors
from appliance.engine.loader import TextEncoder
from appliance.engine.tokenizer import TOKENS_ENOUGH
from appliance.engine.vectors import Matrix
from appliance.pricing.tariff import TaskKind
from appliance.sequences.prompt import query_text
from appliance.sequences.sequence import Tokens
from appliance.tasks.plan import Plan, plan_cosine, plan_pairs, plan_templated
from appliance.wire.questions import RerankRequest

RESULT_BYTES = 160
"""Of an index and a score, about, in each of two lists."""
REPEATED_CHARS_MAX = 16_000_000
"""Of a query, counted once for each document, where a model reads both as one text."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What was asked and what was found, to be written in some shape."""

    sent: RerankRequest
    spec: ModelSpec
    plan: Plan
    units: int
    order: list[tuple[int, float]]
    """Index and score of each document that is answered, best first."""


Writer = Callable[[Ranked], bytes]
"""Writes the body of an answer."""


@dataclass(frozen=True, slots=True)
class RerankTask:
    """A request to rank documents."""

    sent: RerankRequest
    write: Writer
    shape: str = ""
    """Tells apart how one body is read; with it calls are known again that are sent twice."""

    @property
    def kind(self) -> TaskKind:
        """What a model must do to be asked this."""
        return "rerank"

    @property
    def model(self) -> str | None:
        """The model's name as the client sent it; None: it named none."""
        return self.sent.model

    @property
    def param(self) -> str:
        """The field of the body that holds the texts."""
        return self.sent.param

    def size(self, texts: Sequence[str]) -> int:
        """Return how many characters there are to tokenize."""
        return sum(map(len, texts))

    def tokens_enough(self, tokens_max: int) -> int:
        """Return after how many tokens of a text the others make no difference."""
        return tokens_max if self.sent.truncate else TOKENS_ENOUGH

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
                param=self.param,
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
                param=self.param,
            )
        if limit is not None:
            documents = [document[:limit] for document in documents]
        plan_texts = plan_cosine if spec.entry.scores == "cosine" else plan_pairs
        return plan_texts(
            query,
            documents,
            encoder.frame,
            tokens_max=tokens_max,
            truncate=truncate,
            param=self.param,
        )

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

    def answer_bytes(self, spec: ModelSpec) -> int:
        """Return about what the scores take, with the documents if they were asked for."""
        del spec
        documents = self.sent.documents
        texts = sum(map(len, documents)) if self.sent.return_documents else 0
        return len(documents) * RESULT_BYTES + 2 * texts

    def render(self, spec: ModelSpec, plan: Plan, matrix: Matrix) -> bytes:
        """Return the answer: best first, ties in the order of the documents."""
        sent = self.sent
        order = ranking(scores(matrix, sent=sent, spec=spec), sent.top_n)
        return self.write(Ranked(sent, spec, plan, self.units(spec, plan), order))


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
