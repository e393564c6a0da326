"""TEI: Hugging Face's text-embeddings-inference, whose answers are bare lists.

`POST /embed` and, as its clients also call it, `POST /`. A server of TEI has one model: its clients
name none, and the default model of the task is meant, or the one in the path.
"""

from typing import Any

import msgspec

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.shapes.rows import json_list
from appliance.tasks.embed import Embedded, EmbedTask
from appliance.wire.inputs import inputs_of
from appliance.wire.json import decode_leniently, is_given
from appliance.wire.models import ModelView
from appliance.wire.questions import (
    Count,
    EmbeddingsRequest,
    ModelName,
    Word,
    cut_of,
    kind_of,
    split_model,
)


class EmbedBody(msgspec.Struct):
    """The body as sent."""

    inputs: msgspec.Raw = msgspec.Raw()
    model: ModelName | None = None
    """Not TEI's own; for whoever has several."""
    truncate: bool | Word | None = None
    truncation_direction: Word | None = None
    normalize: bool | None = None
    dimensions: Count | None = None
    prompt_name: Word | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    """Hugging Face's pipelines put the other fields in here."""


class TextsOrInputs(msgspec.Struct):
    """What tells the body of a Cohere client, whose base URL has no version, from one of TEI's."""

    texts: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()


def is_of_cohere(body: bytes) -> bool:
    """Say whether a body has `texts` and no `inputs`.

    Raises:
        InvalidRequest: it is no JSON.
    """
    if b'"texts"' not in body:
        return False
    sent = decode_leniently(body, TextsOrInputs)
    return is_given(sent.texts) and not is_given(sent.inputs)


def embed_task(body: bytes, limits: Limits, *, model: str | None = None) -> EmbedTask:
    """Return what a body asks; `model` is one that the path names.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode_leniently(body, EmbedBody)
    if is_given(sent.parameters) and bytes(sent.parameters).split() not in ([b"{}"], [b"{", b"}"]):
        raise InvalidRequest("parameters: put these fields beside inputs", param="parameters")
    name, said = split_model(model or sent.model)
    inputs = inputs_of(sent.inputs, limits, param="inputs")
    question = EmbeddingsRequest(
        model=name,
        texts=inputs.texts,
        token_ids=inputs.token_ids,
        is_single=inputs.is_single,
        param="inputs",
        dimensions=sent.dimensions,
        cut=cut_of(sent.truncate, direction=sent.truncation_direction),
        input_type=kind_of(sent.prompt_name, param="prompt_name") if sent.prompt_name else said,
        normalize=sent.normalize is not False,
    )
    return EmbedTask(question, write=vectors, shape=f"tei {model}" if model else "tei")


def vectors(found: Embedded) -> bytes:
    """Return the list of vectors."""
    return json_list(found, "float")


def info(view: ModelView, *, pooling: str, version: str, inputs_max: int) -> dict[str, Any]:
    """Return what `GET /info` says of a model."""
    kind = "embedding" if view.task == "embeddings" else "reranker"
    return {
        "model_id": view.id,
        "model_sha": None,
        "model_dtype": view.quantization.lower() or "float16",
        "model_type": {kind: {"pooling": pooling} if kind == "embedding" else {}},
        "max_input_length": view.max_input_tokens,
        "max_client_batch_size": inputs_max,
        "auto_truncate": True,
        "version": version,
    }
