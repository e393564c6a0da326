"""Cohere: `POST /v1/embed` and `POST /v2/embed`: a list of vectors for each kind of numbers."""

from typing import Annotated, Any, Literal

import msgspec
import orjson

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.shapes.rows import json_list
from appliance.tasks.embed import Embedded, EmbedTask
from appliance.wire.json import decode, decode_leniently, decode_small, is_given
from appliance.wire.models import ModelView
from appliance.wire.questions import (
    VECTOR_TYPES,
    Count,
    EmbeddingsRequest,
    ModelName,
    Word,
    cut_of,
    kind_of,
    split_model,
    types_of,
)
from appliance.wire.texts import embedding_inputs

BASE64 = "base64"
"""Cohere's name for floats in base64, beside the kinds of numbers."""
Words: Any = Annotated[list[Word], msgspec.Meta(max_length=16)]
PARTS_MAX = 8
"""Of an input, on the average."""


class EmbedBody(msgspec.Struct):
    """The body as sent; nothing but a model and texts is required, whichever the version."""

    model: ModelName | None = None
    texts: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()
    """The second version's: objects with `content`, a list of parts."""
    images: msgspec.Raw = msgspec.Raw()
    input_type: Word | None = None
    embedding_types: msgspec.Raw = msgspec.Raw()
    output_dimension: Count | None = None
    truncate: Word | None = None
    max_tokens: Count | None = None


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    """A part of an input."""

    text: str


class Input(msgspec.Struct):
    """One input of several parts."""

    content: list[TextPart]


def embed_task(
    body: bytes, limits: Limits, *, request_id: str, version: Literal[1, 2]
) -> EmbedTask:
    """Return what a body asks.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
        TokenInputUnsupported: `texts` holds token ids.
    """
    sent = decode_leniently(body, EmbedBody)
    if is_given(sent.images) and bytes(sent.images).strip() != b"[]":
        raise InvalidRequest("images: only texts are embedded here", param="images")
    if sent.max_tokens is not None:
        raise InvalidRequest("max_tokens: a text has the model's own limit", param="max_tokens")
    name, kind = split_model(sent.model)
    if sent.input_type is not None:
        kind = kind_of(sent.input_type, param="input_type")
    given = is_given(sent.embedding_types)
    words = decode_small(sent.embedding_types, Words, param="embedding_types") if given else []
    asked = words or ["float"]
    param, texts = _texts(sent, limits)
    question = EmbeddingsRequest(
        model=name,
        texts=texts,
        param=param,
        types=_types(asked),
        dimensions=sent.output_dimension,
        cut=cut_of(sent.truncate),
        input_type=kind,
    )

    def write(found: Embedded) -> bytes:
        return _answer(found, asked, request_id=request_id, version=version, is_bare=not words)

    return EmbedTask(question, write=write, echoes=True, shape="cohere")


def _types(words: list[str]) -> Any:
    if len(set(words)) != len(words):
        raise InvalidRequest("embedding_types names each kind once", param="embedding_types")
    unknown = next((word for word in words if word not in VECTOR_TYPES and word != BASE64), None)
    if unknown is not None:
        raise InvalidRequest(
            f"embedding_types are some of {', '.join(VECTOR_TYPES)} and {BASE64}, "
            f"not {unknown[:50]!r}",
            param="embedding_types",
        )
    kinds = dict.fromkeys("float" if word == BASE64 else word for word in words)
    return types_of(list(kinds), param="embedding_types")


def _texts(sent: EmbedBody, limits: Limits) -> tuple[str, list[str]]:
    """Return the name of the field that holds the texts, and the texts."""
    if not is_given(sent.inputs):
        return "texts", embedding_inputs(sent.texts, limits, param="texts")
    if is_given(sent.texts):
        raise InvalidRequest("texts and inputs are the same; send one", param="inputs")
    if bytes(sent.inputs).count(b"{") > limits.inputs_max * PARTS_MAX:
        raise InvalidRequest(
            f"inputs has more than {limits.inputs_max} items; split it", param="inputs"
        )
    inputs = decode(sent.inputs, list[Input], param="inputs")
    joined = ["\n".join(part.text for part in each.content) for each in inputs]
    raw = msgspec.Raw(msgspec.json.encode(joined))
    return "inputs", embedding_inputs(raw, limits, param="inputs")


def _answer(
    found: Embedded, words: list[str], *, request_id: str, version: Literal[1, 2], is_bare: bool
) -> bytes:
    """Return the answer; the first version's is a bare list where no kind was asked for."""
    is_floats = version == 1 and is_bare
    if is_floats:
        lists = json_list(found, "float")
    else:
        by_type = [
            orjson.dumps(word)
            + b":"
            + json_list(found, VECTOR_TYPES.get(word, "float"), base64=word == BASE64)
            for word in words
        ]
        lists = b"{" + b",".join(by_type) + b"}"
    head = {"id": request_id, "texts": found.sent.texts}
    meta = {
        "api_version": {"version": str(version)},
        "billed_units": {"input_tokens": found.plan.tokens},
    }
    rest: dict[str, Any] = {
        "response_type": "embeddings_floats" if is_floats else "embeddings_by_type",
        "meta": meta,
    }
    return orjson.dumps(head)[:-1] + b',"embeddings":' + lists + b"," + orjson.dumps(rest)[1:]


def models(views: list[ModelView], endpoint: str | None = None) -> list[dict[str, Any]]:
    """Return the list that Cohere's clients read in the answer to `GET /v1/models`."""
    described = map(model, views)
    return [each for each in described if endpoint is None or endpoint in each["endpoints"]]


def model(view: ModelView) -> dict[str, Any]:
    """Return what Cohere's clients read of one model."""
    return {
        "name": view.id,
        "endpoints": ["embed" if view.task == "embeddings" else "rerank"],
        "context_length": view.max_input_tokens,
        "finetuned": False,
        "tokenizer_url": None,
    }
