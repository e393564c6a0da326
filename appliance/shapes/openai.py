"""OpenAI: `POST /v1/embeddings`, the union of the OpenAI, Voyage, Jina and infinity requests.

Every field that would change the answer is heeded or refused; all others are ignored.
"""

from typing import Any, Literal

import msgspec
import orjson

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.engine import vectors
from appliance.engine.vectors import Vectors
from appliance.shapes.rows import slices
from appliance.tasks.embed import Embedded, EmbedTask
from appliance.tasks.task import usage_of
from appliance.wire.inputs import inputs_of
from appliance.wire.json import decode_leniently, decode_small, is_given
from appliance.wire.questions import (
    Count,
    Cut,
    EmbeddingsRequest,
    ModelName,
    VectorType,
    Word,
    cut_of,
    kind_of,
    one_of,
    split_model,
    types_of,
)

Words: Any = Word | list[Word]


class EmbeddingsBody(msgspec.Struct):
    """The body as sent."""

    model: ModelName | None = None
    input: msgspec.Raw = msgspec.Raw()
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    output_dimension: Count | None = None
    """Voyage's and Cohere's name for it."""
    output_dtype: Word | None = None
    """Voyage's."""
    embedding_type: msgspec.Raw = msgspec.Raw()
    """Jina's: a kind of numbers, or base64."""
    encoding_type: Word | None = None
    """LlamaIndex's name for Jina's."""
    truncate: bool | Word | None = None
    truncation: bool | None = None
    """Voyage's."""
    input_type: Word | None = None
    task: Word | None = None
    """Jina's name for it."""
    normalized: bool | None = None
    """Jina's."""
    long_input: Literal["truncate", "mean"] | None = None
    """Our own: what becomes of a text that is too long."""
    late_chunking: bool | None = None
    """Jina's: the texts are parts of one."""
    return_multivector: bool | None = None
    modality: Word | None = None
    """infinity's."""


def embed_task(body: bytes, limits: Limits, *, model: str | None = None) -> EmbedTask:
    """Return what a body asks; `model` is one that the path names, which comes first.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    shape = f"azure {model}" if model else ""
    return EmbedTask(_question(body, limits, model), write=embeddings, shape=shape)


def _question(body: bytes, limits: Limits, model: str | None) -> EmbeddingsRequest:
    sent = decode_leniently(body, EmbeddingsBody)
    _refuse_unknown_ways(sent)
    name, said = split_model(model or sent.model)
    kind = said
    if sent.input_type is not None:
        kind = kind_of(sent.input_type, param="input_type")
    elif sent.task is not None:
        kind = kind_of(sent.task, param="task")
    types, is_base64 = _types(sent)
    inputs = inputs_of(sent.input, limits, param="input")
    return EmbeddingsRequest(
        model=name,
        texts=inputs.texts,
        token_ids=inputs.token_ids,
        is_single=inputs.is_single,
        types=types,
        base64=is_base64,
        dimensions=one_of(
            sent.dimensions, sent.output_dimension, names=("dimensions", "output_dimension")
        ),
        cut=_cut(sent),
        input_type=kind,
        normalize=_normalize(sent, types),
        is_windowed=sent.long_input == "mean",
        is_joined=sent.late_chunking is True,
    )


def _refuse_unknown_ways(sent: EmbeddingsBody) -> None:
    if sent.return_multivector:
        raise InvalidRequest(
            "return_multivector is not done here; leave it out", param="return_multivector"
        )
    if sent.long_input == "mean" and sent.late_chunking:
        raise InvalidRequest(
            "late_chunking reads all texts in one pass, long_input mean in several; send one",
            param="late_chunking",
        )
    if sent.long_input == "mean" and sent.normalized is False:
        raise InvalidRequest("a mean of windows is always normalized", param="normalized")
    if sent.modality not in {None, "text"}:
        raise InvalidRequest("modality is text; nothing else is embedded here", param="modality")


def _types(sent: EmbeddingsBody) -> tuple[tuple[VectorType, ...], bool]:
    """Return the kind of numbers and whether they are base64.

    Raises:
        InvalidRequest: an unknown kind, or several.
    """
    is_base64 = sent.encoding_format == "base64"
    has_type = is_given(sent.embedding_type)
    if (sent.output_dtype is not None) + has_type + (sent.encoding_type is not None) > 1:
        raise InvalidRequest(
            "output_dtype, embedding_type and encoding_type are the same; send one",
            param="embedding_type",
        )
    if sent.output_dtype is not None:
        return types_of(sent.output_dtype, param="output_dtype"), is_base64
    if not has_type and sent.encoding_type is None:
        return ("float",), is_base64
    words = [sent.encoding_type or ""]
    if has_type:
        found = decode_small(sent.embedding_type, Words, param="embedding_type")
        words = [found] if isinstance(found, str) else found
    if len(words) != 1:
        raise InvalidRequest(
            "embedding_type is one kind here; POST /v2/embed answers several",
            param="embedding_type",
        )
    if words == ["base64"]:
        return ("float",), True
    return types_of(words, param="embedding_type"), is_base64


def _cut(sent: EmbeddingsBody) -> Cut:
    cut = cut_of(sent.truncate, truncation=sent.truncation)
    if sent.long_input == "mean" and cut != "end":
        raise InvalidRequest("long_input: a text that is not cut has no truncate", param="truncate")
    return cut


def _normalize(sent: EmbeddingsBody, types: tuple[VectorType, ...]) -> bool:
    if sent.normalized is not False:
        return True
    if types != ("float",):
        raise InvalidRequest("normalized: false goes with floats alone", param="normalized")
    return False


def embeddings(found: Embedded) -> bytes:
    """Return OpenAI's list of embeddings, which Voyage's and Jina's clients read too."""
    kind, is_base64 = found.sent.types[0], found.sent.base64
    parts = [_members(rows, first, base64=is_base64) for first, rows in slices(found, kind)]
    rest = orjson.dumps({"model": found.spec.id, "usage": usage_of(found.plan)})
    return b'{"object":"list","data":[' + b",".join(parts) + b"]," + rest[1:]


def _members(rows: Vectors, first: int, *, base64: bool) -> bytes:
    """Return members of the list, numbered from `first`, without its brackets."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vectors.to_base64(row) if base64 else row,
        }
        for index, row in enumerate(rows, first)
    ]
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
