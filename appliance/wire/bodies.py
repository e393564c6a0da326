"""Bodies: what the two paid endpoints accept.

Owns the fields of OpenAI's embeddings request and the union of the Cohere, Jina, Voyage and TEI
rerank requests. Unknown fields are ignored, nulls mean "not given".
"""

from typing import Annotated, Literal

import msgspec

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.wire.json import decode
from appliance.wire.texts import holds_token_ids, require_text, rerank_documents, texts_of
from appliance.wire.tokens import token_lists

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
InputType = Literal["query", "document"]
KINDS: dict[str, InputType] = {
    "query": "query",
    "document": "document",
    "search_query": "query",
    "search_document": "document",
}
"""Ours and Voyage's words, and Cohere's."""
ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class EmbeddingsBody(msgspec.Struct):
    """`POST /v1/embeddings` as sent."""

    model: ModelName
    input: msgspec.Raw
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    truncate: bool | None = None
    input_type: Literal["query", "document", "search_query", "search_document"] | None = None


class RerankBody(msgspec.Struct):
    """`POST /v1/rerank` as sent."""

    model: ModelName
    query: str
    documents: msgspec.Raw = msgspec.Raw()
    texts: msgspec.Raw = msgspec.Raw()
    top_n: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    raw_scores: bool | None = None
    truncate: bool | None = None
    truncation: bool | None = None
    max_tokens_per_doc: Count | None = None
    max_doc_length: Count | None = None
    instruction: str | None = None
    rank_fields: Annotated[list[str], msgspec.Meta(max_length=32)] | None = None


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """A checked request for vectors."""

    model: str
    texts: list[str]
    base64: bool
    dimensions: int | None
    truncate: bool
    input_type: InputType | None
    """None: texts are taken as they are."""
    token_ids: list[list[int]] | None = None
    """Ids that were sent instead of texts; None: there are texts."""
    is_single: bool = False
    """True: one list of ids was sent by itself."""
    are_own: bool = False
    """True: the ids are known to be the model's own. Whoever does not say so, by `TokenInputs`, has
    them refused: nobody can tell by looking at them."""

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.texts if self.token_ids is None else self.token_ids)


class RerankRequest(msgspec.Struct, frozen=True):
    """A checked request for a ranking."""

    model: str
    query: str
    documents: list[str]
    top_n: int | None
    """None: all of them."""
    return_documents: bool
    raw_scores: bool
    truncate: bool
    document_tokens_max: int | None
    """None: as many as the model takes."""
    instruction: str | None
    """None: what the model was trained with."""


def embeddings_request(body: bytes, limits: Limits) -> EmbeddingsRequest:
    """Return the checked request.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode(body, EmbeddingsBody)
    model, said = _split_kind(sent.model)
    texts, token_ids, is_single = [], None, False
    if holds_token_ids(sent.input):
        token_ids, is_single = token_lists(sent.input, limits, param="input")
    else:
        texts = texts_of(sent.input, limits, param="input")
    return EmbeddingsRequest(
        model=model,
        texts=texts,
        base64=sent.encoding_format == "base64",
        dimensions=sent.dimensions,
        truncate=sent.truncate is not False,
        input_type=KINDS[sent.input_type] if sent.input_type else said,
        token_ids=token_ids,
        is_single=is_single,
    )


def _split_kind(model: str) -> tuple[str, InputType | None]:
    """Split `id#query`: the way for clients that can send nothing but a model's name.

    Raises:
        InvalidRequest: another word stands there.
    """
    name, mark, said = model.partition("#")
    if not mark:
        return model, None
    if said not in KINDS:
        raise InvalidRequest(f"after # stands query or document, not {said[:50]!r}", param="model")
    return name, KINDS[said]


def rerank_request(body: bytes, limits: Limits) -> RerankRequest:
    """Return the checked request.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode(body, RerankBody)
    require_text(sent.query, limits, param="query")
    if sent.instruction:
        require_text(sent.instruction, limits, param="instruction")
    param, raw = (
        ("documents", sent.documents) if _is_given(sent.documents) else ("texts", sent.texts)
    )
    if not _is_given(raw):
        raise InvalidRequest("documents is missing", param="documents")
    documents = rerank_documents(raw, limits, param=param, fields=sent.rank_fields)
    top_n = sent.top_n if sent.top_n is not None else sent.top_k
    return RerankRequest(
        model=sent.model,
        query=sent.query,
        documents=documents,
        top_n=top_n or None,  # 0 means all, as in vLLM
        return_documents=bool(sent.return_documents or sent.return_text),
        raw_scores=bool(sent.raw_scores),
        truncate=sent.truncate is not False and sent.truncation is not False,
        document_tokens_max=sent.max_tokens_per_doc or sent.max_doc_length,
        instruction=sent.instruction or None,
    )


def _is_given(raw: msgspec.Raw) -> bool:
    return bytes(raw).strip() not in (b"", b"null")
